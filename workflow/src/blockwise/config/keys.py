"""Keys of endpoints: a configuration names the variable that holds one, and never the key itself.

A configuration is resolved into files, records and the crate, and quoted in messages, so a key
that stands in it is as good as published. Places where one is likely to be put by mistake are
refused, and their values are never shown.
"""

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
SECRET_VARIABLE = re.compile(
    r"(.*_)?(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)", re.IGNORECASE
)


def name_of_a_variable(text: str) -> str:
    """The same name, if a variable may be called so.

    Raises:
        ValueError: it is none; the text is not shown.
    """
    if not VARIABLE.fullmatch(text):
        raise ValueError(
            "is no name of an environment variable (capitals, digits and _); name the variable "
            "that holds the key. The value is not shown, because it may be the key itself"
        )
    return text


def address(text: str) -> str:
    """The same address, if it can be asked and holds no key.

    Raises:
        ValueError: it is none, or names a user; the text is not shown then.
    """
    try:
        parts = urlsplit(text)
        has_user = parts.username is not None or parts.password is not None
        is_whole = text.isprintable() and parts.port != 0
    except ValueError as error:
        raise ValueError(f"is no address ({error}); mend it") from None
    if has_user:
        raise ValueError(
            "names a user or a key before the @, and addresses are recorded; leave it out. The "
            "value is not shown"
        )
    if not is_whole:
        raise ValueError(f"{text!r} is no address: it holds a control sign or port 0")
    return text


def endpoint(text: str) -> str:
    """The same address, if it is an endpoint's base.

    Raises:
        ValueError: it is none, or ends in a query.
    """
    parts = urlsplit(address(text))
    if not parts.hostname:
        raise ValueError(f"{text!r} names no host; give one, as in http://host:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError(
            "ends in a query (? or #), where a key would be recorded; an endpoint ends in /v1, and "
            "its key stands in the variable that api_key_env names. The value is not shown"
        )
    return text


KeyVariable = Annotated[str, AfterValidator(name_of_a_variable)]
_Url = Annotated[str, Field(pattern=r"^https?://")]


def _endpoints(given: str | list[str]) -> str | list[str]:
    """One address or several; checked behind the choice, whose other side would quote them."""
    for one in [given] if isinstance(given, str) else given:
        endpoint(one)
    return given


EndpointUrl = Annotated[_Url, AfterValidator(endpoint)]
EndpointUrls = Annotated[
    _Url | Annotated[list[_Url], Field(min_length=1)], AfterValidator(_endpoints)
]


def secret_variables(names: Iterable[str]) -> list[str]:
    """Names of environment variables that hold a secret, by what they are called."""
    return sorted(name for name in names if SECRET_VARIABLE.fullmatch(name))
