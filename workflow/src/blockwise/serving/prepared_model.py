"""A model that is ready to be served: where its files are, and the digest that stands for them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PreparedModel(BaseModel):
    """What `blockwise.serving.models` writes and every batch job reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    backbone: str
    source: str  # random | pocket | path | hub
    path: str  # what the server loads: a folder or a hub id
    revision: str | None  # hub: the commit
    tokenizer_path: str  # a local folder, whatever the source
    digest: str  # of the files; hub: id@commit
    num_parameters: int | None  # None: not counted (path and hub)
