"""The judge: a model of another family that says whether an answer is right."""

from pydantic import Field

from blockwise.config.base import UNPINNED, ConfigModel, Name
from blockwise.config.keys import EndpointUrl, KeyVariable


class JudgeModel(ConfigModel):
    """The hub model behind the endpoint. Nobody can see through an endpoint: it is a statement."""

    id: str = Field(description="Hub id, e.g. Qwen/Qwen3-30B-A3B-Instruct-2507.")
    revision: str = Field(UNPINNED, description="Commit hash; `unpinned` may dry-run, not run.")


class Judge(ConfigModel):
    """An OpenAI-compatible endpoint, asked at temperature 0 with a published prompt.

    Its verdicts stand beside the official scores, never instead of them, together with the share
    of wrong and vague answers of a built-in set that it accepts.
    """

    url: EndpointUrl = Field(description="Base URL, up to and including /v1.")
    served_model: str = Field(description="Model name to put into requests.")
    version: str = Field(description="What runs there, in words; part of the verdict's key.")
    model: JudgeModel | None = Field(
        None, description="The hub model that it serves; part of the verdict's key."
    )
    api_key_env: KeyVariable | None = Field(
        None, description="Environment variable that holds the key."
    )
    prompt: Name = Field("judge", description="A file of config/prompts, without .md.")
    timeout_s: float = Field(120.0, gt=0)

    @property
    def described(self) -> str:
        """What runs there: the version in words and, where it is named, the model's commit."""
        if self.model is None:
            return self.version
        return f"{self.version}; {self.model.id}@{self.model.revision}"
