"""Small requests to a server's own endpoints: health, version, models, tokens.

Proxies of the environment are bypassed for this machine only, where they could not help.
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from blockwise.serving.api_key import without_key

TIMEOUT_S = 10.0  # a loaded server answers these from memory; beyond it something is stuck
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class HttpError(Exception):
    """What went wrong, with the URL, in words."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


def is_local(url: str) -> bool:
    """Whether a URL names this machine."""
    return urlsplit(url).hostname in LOCAL_HOSTS


def get_text(url: str, api_key: str, timeout_s: float = TIMEOUT_S) -> str:
    """Body of a GET.

    Raises:
        HttpError: no answer, or one that is no success. The key is in neither text.
    """
    return _ask(url, api_key, None, timeout_s)


def get_json(url: str, api_key: str) -> Any:
    """Body of a GET, parsed.

    Raises:
        HttpError: as `get_text`, or the body is not JSON.
    """
    return _parse(url, _ask(url, api_key, None, TIMEOUT_S))


def post_json(url: str, api_key: str, body: Any) -> Any:
    """Answer to a POST of JSON, parsed.

    Raises:
        HttpError: as `get_json`.
    """
    return _parse(url, _ask(url, api_key, json.dumps(body).encode(), TIMEOUT_S))


def _ask(url: str, api_key: str, body: bytes | None, timeout_s: float) -> str:
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310  config: http(s)
    proxies = urllib.request.ProxyHandler({}) if is_local(url) else urllib.request.ProxyHandler()
    opener = urllib.request.build_opener(proxies)
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return without_key(str(response.read().decode()), api_key)
    except urllib.error.HTTPError as error:
        said = without_key(str(error.reason), api_key)
        raise HttpError(f"{url} answers HTTP {error.code} {said}") from error
    except urllib.error.URLError as error:
        timed_out = isinstance(error.reason, TimeoutError)
        raise HttpError(f"{url} cannot be reached: {error.reason}", timed_out=timed_out) from error
    except TimeoutError as error:
        raise HttpError(f"{url} did not answer in {timeout_s:g} s", timed_out=True) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = without_key(repr(error), api_key)
        raise HttpError(f"{url} cannot be read: {said}") from error


def _parse(url: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise HttpError(f"{url} does not answer in JSON: {error}") from error


def is_up(url: str) -> bool:
    """Whether a GET succeeds soon."""
    try:
        get_text(url, api_key="", timeout_s=2.0)
    except HttpError:
        return False
    return True
