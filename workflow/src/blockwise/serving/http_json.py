"""Small requests to a server's own endpoints: health, version, models, tokens.

Proxies of the environment are bypassed for this machine only, where they could not help. Whom
the machine trusts is trusted here, so an endpoint may bear a certificate of the user's own house.
"""

import functools
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx

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
    return _ask("GET", url, api_key, None, timeout_s)


def get_json(url: str, api_key: str) -> Any:
    """Body of a GET, parsed.

    Raises:
        HttpError: as `get_text`, or the body is not JSON.
    """
    return _parse(url, _ask("GET", url, api_key, None, TIMEOUT_S))


def post_json(url: str, api_key: str, body: Any) -> Any:
    """Answer to a POST of JSON, parsed.

    Raises:
        HttpError: as `get_json`.
    """
    return _parse(url, _ask("POST", url, api_key, body, TIMEOUT_S))


def _ask(method: str, url: str, api_key: str, body: Any, timeout_s: float) -> str:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.Client(
            verify=_trusted(), trust_env=not is_local(url), follow_redirects=True
        ) as client:
            answer = client.request(method, url, headers=headers, json=body, timeout=timeout_s)
            answer.raise_for_status()
            return without_key(answer.text, api_key)
    except httpx.HTTPStatusError as error:
        refused = error.response
        said = without_key(refused.reason_phrase, api_key)
        raise HttpError(f"{url} answers HTTP {refused.status_code} {said}") from error
    except httpx.TimeoutException as error:
        raise HttpError(f"{url} did not answer in {timeout_s:g} s", timed_out=True) from error
    except httpx.NetworkError as error:
        raise HttpError(f"{url} cannot be reached: {without_key(str(error), api_key)}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        said = without_key(repr(error), api_key)
        raise HttpError(f"{url} cannot be read: {said}") from error
    except ImportError as error:  # httpx's own, of a package that no lock holds
        raise HttpError(
            f"{url} cannot be reached: a variable of the environment (ALL_PROXY, HTTP_PROXY, "
            "HTTPS_PROXY) names a SOCKS proxy, which is not spoken here; name an HTTP proxy or "
            "unset it for this command"
        ) from error


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Certificates of this machine; read once, because reading takes longer than asking."""
    return ssl.create_default_context()


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
