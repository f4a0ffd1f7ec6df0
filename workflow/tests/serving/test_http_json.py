"""Small requests: which proxies and certificates count, and where a key goes."""

import http.server
import threading

import pytest

from blockwise.serving import http_json
from blockwise.serving.http_json import HttpError, get_text

ELSEWHERE = "http://endpoint.invalid/v1/models"  # a name that nobody can have


class Page(http.server.BaseHTTPRequestHandler):
    """`/key` says what key came along; any other path sends on to what it ends in."""

    def do_GET(self):
        if self.path == "/key":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(str(self.headers["Authorization"]).encode())
        else:
            self.send_response(307)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def pages():
    """Addresses of two servers."""
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) for _ in range(2)]
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        for server in servers
    ]
    for thread in threads:
        thread.start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


KEY = "sk-of-the-test-0123456789"


def test_a_redirect_is_followed_and_the_key_stays_where_it_belongs(pages):
    first, second = pages
    assert get_text(f"{first}/to/{first}/key", KEY) == "Bearer [key]"
    assert get_text(f"{first}/to/{second}/key", KEY) == "None"


def test_a_socks_proxy_is_refused_in_words_and_never_used_for_this_machine(pages, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pass@127.0.0.1:9")
    assert get_text(f"{pages[0]}/key", "") == "None"
    with pytest.raises(HttpError, match=r"names a SOCKS proxy.*unset it") as caught:
        get_text(ELSEWHERE, "")
    assert "pass" not in str(caught.value)


def test_a_file_of_certificates_that_is_gone_is_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    http_json._trusted.cache_clear()
    with pytest.raises(HttpError, match="cannot be reached"):
        get_text(ELSEWHERE, "")
