"""Backbones: which model, how it is served, how it is asked."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from blockwise.config.base import UNPINNED, ConfigModel, PositiveTokens


class Architecture(StrEnum):
    """How a backbone's feed-forward layers are built."""

    DENSE = "dense"
    MOE = "moe"


class RequestForm(StrEnum):
    """The one form in which a backbone receives its prompts, recorded in its engine card."""

    CHAT = "chat"  # messages; the server applies its chat template (reasoning parsers need it)
    COMPLETION = "completion"  # token ids of the chat template applied on our side


class RandomModel(ConfigModel):
    """A small Llama with random weights and its own tokenizer, made by a rule.

    Its answers are noise: it serves timing only. Nothing is downloaded.
    """

    source: Literal["random"]
    seed: int = 0
    hidden_size: int = Field(256, gt=0)
    intermediate_size: int = Field(704, gt=0)
    num_layers: int = Field(6, gt=0)
    num_attention_heads: int = Field(4, gt=0)
    num_key_value_heads: int = Field(4, gt=0)
    vocab_size: int = Field(4096, ge=512, description="Byte-level BPE tokens, specials included.")


class PathModel(ConfigModel):
    """Hugging Face model files in a local folder."""

    source: Literal["path"]
    path: str


class HubModel(ConfigModel):
    """A model of the Hugging Face hub at a pinned commit."""

    source: Literal["hub"]
    id: str = Field(description="Hub id, e.g. meta-llama/Llama-3.1-8B-Instruct.")
    revision: str = Field(UNPINNED, description="Commit hash; `unpinned` may dry-run, not run.")


ModelSource = Annotated[RandomModel | PathModel | HubModel, Field(discriminator="source")]

ArgumentValue = bool | int | float | str


class VllmEngine(ConfigModel):
    """A vLLM server that each job starts, watches and always stops."""

    kind: Literal["vllm"]
    arguments: dict[str, ArgumentValue] = Field(
        default_factory=dict,
        description="Flags of vLLM's OpenAI server without the dashes; true is a bare flag, "
        "false a --no- flag. `port` pins the port; otherwise a free one is taken.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables of the server (never keys: those are inherited).",
    )
    startup_timeout_s: float = Field(900.0, gt=0)


class ExternalEngine(ConfigModel):
    """An OpenAI-compatible endpoint that somebody else runs."""

    kind: Literal["external"]
    url: str = Field(pattern=r"^https?://", description="Base URL, up to and including /v1.")
    served_model: str = Field(description="Model name to put into requests.")
    version: str = Field(description="What runs there, in words; part of the cell key.")
    api_key_env: str | None = Field(None, description="Environment variable that holds the key.")
    cache_salt: bool = Field(False, description="The server honours vLLM's cache_salt.")


Engine = Annotated[VllmEngine | ExternalEngine, Field(discriminator="kind")]


class RequestDefaults(ConfigModel):
    """What every request to this backbone carries."""

    form: RequestForm = RequestForm.CHAT
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    chat_template_arguments: dict[str, ArgumentValue] = Field(
        default_factory=dict,
        description="Extra variables of the chat template, e.g. a pinned date_string.",
    )
    timeout_s: float = Field(600.0, gt=0)


class Backbone(ConfigModel):
    """One model under study. Adding a backbone is adding one entry."""

    model: ModelSource
    architecture: Architecture
    reasoning: bool
    num_parameters: float = Field(gt=0, description="Total parameters, for labels and order.")
    context_window_tokens: PositiveTokens
    engine: Engine
    gpus: int = Field(0, ge=0, description="GPUs the server takes; 0 serves on the CPU.")
    request: RequestDefaults = RequestDefaults()
    caption: str = Field("", description="A warning that every figure of this backbone shows.")

    @model_validator(mode="after")
    def _engine_and_model_agree(self) -> "Backbone":
        problems = []
        if self.engine.kind == "external" and self.model.source == "random":
            problems.append(
                "an external engine serves a model of its own: give `model` the hub id or path "
                "whose tokenizer it uses"
            )
        samples_on_cpu = not self.gpus and self.request.temperature > 0
        if samples_on_cpu and self._asks_for_chunked_prefill():
            problems.append(
                f"request.temperature {self.request.temperature} with chunked prefill kills "
                "vLLM on the CPU; remove enable-chunked-prefill or set temperature to 0"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _asks_for_chunked_prefill(self) -> bool:
        return self.engine.kind == "vllm" and bool(
            self.engine.arguments.get("enable-chunked-prefill")
        )
