"""The embedder: how summaries become vectors whose cosine tells how alike they are."""

from typing import Annotated, Literal

from pydantic import Field

from blockwise.config.base import UNPINNED, ConfigModel


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


Embedder = Annotated[TfidfEmbedder | HubEmbedder | PathEmbedder, Field(discriminator="kind")]
