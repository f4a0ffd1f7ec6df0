"""The key of an endpoint: taken from the environment, sent, and written nowhere.

A server may say in an error what it was sent, and a client library what it could not send, so
every text that came from the other side loses the key before it becomes a message or a record.
"""

import json
import os

from blockwise.errors import ConfigError

NO_KEY = "unused"  # an endpoint without keys asks for none, the client library insists on one
REDACTED = "[key]"
MIN_SECRET_CHARS = 8  # shorter ones are placeholders (`EMPTY`), and words of ordinary answers


def read_key(variable: str, setting: str, whose: str) -> str:
    """The key in an environment variable, without white space around it.

    Args:
        variable: its name.
        setting: which one names it, in words.
        whose: what the key is of, in words.

    Raises:
        ConfigError: it is not set, or holds what no header can carry; the value is not shown.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable} ({setting}) is not set; export the key of "
            f"{whose} in it"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the environment variable {variable} ({setting}) holds {len(key)} characters, and "
            "some of them can be in no key (only ASCII, no white space); export the key of "
            f"{whose} in it and nothing else"
        )
    return key


def without_key(text: str, api_key: str) -> str:
    """A text of the other side without the key that it may quote, as it is or inside JSON."""
    if not holds_key(text, api_key):
        return text
    for form in _forms(api_key):
        text = text.replace(form, REDACTED)
    return text


def holds_key(text: str, api_key: str) -> bool:
    """Whether a text quotes the key; a placeholder counts as none."""
    is_secret = len(api_key) >= MIN_SECRET_CHARS and api_key != NO_KEY
    return is_secret and any(form in text for form in _forms(api_key))


def _forms(api_key: str) -> set[str]:
    """The key as it may be quoted; white space in it can be written in many ways."""
    words = {word for word in api_key.split() if len(word) >= MIN_SECRET_CHARS}
    return {api_key, json.dumps(api_key)[1:-1], repr(api_key)[1:-1], *words}
