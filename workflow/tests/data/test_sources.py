"""Sources: what a network, a disk or a hub can do to a file, and what is left behind."""

import errno
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blockwise import download
from blockwise.artifacts import digest_file
from blockwise.config.datasets import Dataset, MalformedRows
from blockwise.data import sources
from blockwise.data.formats import hotpotqa
from blockwise.data.sources import load_rows
from blockwise.data.synthetic import locomo_rows
from blockwise.download import fetch
from blockwise.errors import DatasetError

ROWS = [
    {
        "_id": f"row-{index}",
        "question": "Where?",
        "answer": "There",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [["A", 0], ["B", 0]],
        "context": [["A", ["One."]], ["B", ["Two.", " Three."]]],
    }
    for index in range(3)
]
BODY = json.dumps(ROWS).encode()
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """A web server that misbehaves as told: `plan` holds what each next request gets."""

    def __init__(self):
        self.plan = []
        self.num_requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # the name that http.server calls
                outer.num_requests += 1
                action = outer.plan.pop(0) if outer.plan else "whole"
                if isinstance(action, int):
                    self.send_error(action)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY if action == "whole" else BODY[: len(BODY) // 2])
                self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/files/rows.json"
        threading.Thread(
            target=self.httpd.serve_forever,
            args=(0.01,),  # polls for shutdown this often, so that a test ends at once
            daemon=True,
        ).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.0)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()


def dataset(**source):
    return Dataset.model_validate(
        {
            "format": "hotpotqa",
            "source": source,
            "sessions": {"num_sessions": 1, "target_tokens": 10},
        }
    )


def cached_files(folder):
    return sorted(path for path in folder.glob("*") if path.suffix != ".sha256")


# --- url --------------------------------------------------------------------------------


def test_url_is_fetched_once_and_then_cached(server, tmp_path):
    source = dataset(kind="url", url=server.url, sha256=SHA256)
    rows, origin = load_rows("d", source, tmp_path)
    assert rows == ROWS
    assert origin == server.url
    assert load_rows("d", source, tmp_path)[0] == ROWS
    assert server.num_requests == 1


def test_unpinned_url_is_cached_by_the_digest_it_had(server, tmp_path):
    path = fetch(server.url, tmp_path)
    assert fetch(server.url, tmp_path) == path
    assert server.num_requests == 1
    path.write_bytes(b"the disk ate it")
    assert fetch(server.url, tmp_path).read_bytes() == BODY
    assert server.num_requests == 2


def test_corrupted_pinned_cache_is_fetched_again(server, tmp_path):
    path = fetch(server.url, tmp_path, sha256=SHA256)
    path.write_bytes(BODY[:-1])
    assert fetch(server.url, tmp_path, sha256=SHA256).read_bytes() == BODY
    assert server.num_requests == 2


def test_truncated_body_is_tried_again(server, tmp_path):
    server.plan = ["half", "half", "whole"]
    assert fetch(server.url, tmp_path).read_bytes() == BODY
    assert server.num_requests == 3


def test_truncated_download_leaves_no_cached_file(server, tmp_path):
    server.plan = ["half"] * 10
    with pytest.raises(DatasetError, match="after 4 attempts") as caught:
        fetch(server.url, tmp_path)
    assert server.url in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_download_leaves_no_cached_file(server, tmp_path, monkeypatch):
    def interrupt(self, num_bytes):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.DownloadProgress, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_overloaded_server_is_tried_again_and_a_missing_file_is_not(server, tmp_path):
    server.plan = [503, 429, "whole"]
    assert fetch(server.url, tmp_path).read_bytes() == BODY
    server.num_requests, server.plan = 0, [404]
    with pytest.raises(DatasetError, match="HTTP 404"):
        fetch(server.url + "x", tmp_path)
    assert server.num_requests == 1


def test_wrong_digest_names_both_and_deletes_nothing_else(server, tmp_path):
    pinned = "0" * 64
    other = tmp_path / "other.json"
    other.write_text("[]")
    earlier = fetch(server.url, tmp_path)
    with pytest.raises(DatasetError) as caught:
        fetch(server.url, tmp_path, sha256=pinned)
    assert pinned in str(caught.value)
    assert SHA256 in str(caught.value)
    assert cached_files(tmp_path) == sorted([other, earlier])
    assert digest_file(earlier) == SHA256


def test_unreachable_server_is_a_clear_error(server, tmp_path):
    server.httpd.shutdown()
    server.httpd.server_close()
    with pytest.raises(DatasetError, match=r"cannot fetch .*kind: path"):
        fetch(server.url, tmp_path)


def test_full_disk_is_a_clear_error(server, tmp_path, monkeypatch):
    def no_space(self, num_bytes):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.DownloadProgress, "advance", no_space)
    with pytest.raises(DatasetError, match="No space left"):
        fetch(server.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_file_urls(tmp_path):
    original = tmp_path / "my rows.json"
    original.write_bytes(BODY)
    cache = tmp_path / "cache"
    source = dataset(kind="url", url=original.as_uri(), sha256=SHA256)
    assert load_rows("d", source, cache)[0] == ROWS
    original.unlink()  # pinned and cached: the original is not needed any more
    assert load_rows("d", source, cache)[0] == ROWS
    with pytest.raises(DatasetError, match="names no file"):
        load_rows("d", dataset(kind="url", url=original.as_uri()), cache)


def test_edited_unpinned_file_url_is_read_anew(tmp_path):
    original = tmp_path / "rows.json"
    original.write_text("[1]")
    fetch(original.as_uri(), tmp_path / "cache")
    original.write_text("[2]")
    assert fetch(original.as_uri(), tmp_path / "cache").read_text() == "[2]"


# --- path -------------------------------------------------------------------------------


def test_path(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(BODY)
    rows, origin = load_rows("d", dataset(kind="path", path=str(path)), tmp_path)
    assert (rows, origin) == (ROWS, str(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file", "datasets.mine.source"]),
        (b"[{", ["not JSON"]),
        (b"\xff\xfe", ["not JSON"]),
        (b'{"rows": []}', ["dict", "not a list"]),
    ],
)
def test_unreadable_path_is_refused(tmp_path, content, words):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        load_rows("mine", dataset(kind="path", path=str(path)), tmp_path)
    for word in ["mine", str(path), *words]:
        assert word in str(caught.value)


# --- synthetic --------------------------------------------------------------------------


def test_synthetic_rows_follow_the_format(tmp_path):
    settings = dataset(kind="synthetic", seed=4, num_rows=2)
    rows, origin = load_rows("d", settings, tmp_path)
    assert [row["_id"] for row in rows] == ["synthetic-4-00000", "synthetic-4-00001"]
    assert origin == "synthetic hotpotqa (seed 4)"
    chats = settings.model_copy(update={"format": "locomo"})
    assert load_rows("d", chats, tmp_path)[0] == locomo_rows(settings.source)


def test_a_format_without_a_generator_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.delitem(sources.GENERATORS, "locomo")
    settings = dataset(kind="synthetic").model_copy(update={"format": "locomo"})
    with pytest.raises(DatasetError, match="d: nothing writes synthetic locomo rows, only hot"):
        load_rows("d", settings, tmp_path)


# --- hub --------------------------------------------------------------------------------


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A local dataset in the hub's own form, columns and all."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub" / "tiny"
    folder.mkdir(parents=True)
    columns = [
        {
            "id": row["_id"],
            **{key: row[key] for key in ("question", "answer", "type", "level")},
            "supporting_facts": {
                "title": [title for title, _ in row["supporting_facts"]],
                "sent_id": [index for _, index in row["supporting_facts"]],
            },
            "context": {
                "title": [title for title, _ in row["context"]],
                "sentences": [sentences for _, sentences in row["context"]],
            },
        }
        for row in ROWS
    ]
    datasets.Dataset.from_list(columns).to_parquet(folder / "validation-00000.parquet")
    return folder


def test_hub_rows_are_loaded_and_read(hub_folder, tmp_path):
    source = dataset(kind="hub", id=str(hub_folder), split="validation")
    rows, origin = load_rows("d", source, tmp_path)
    assert origin == f"{hub_folder} validation at unpinned"
    assert set(rows[0]["context"]) == {"title", "sentences"}
    from_hub = hotpotqa.FORMAT.read(rows, origin=origin, malformed=MalformedRows.REFUSE)
    assert from_hub == hotpotqa.FORMAT.read(ROWS, origin="", malformed=MalformedRows.REFUSE)


def test_hub_failure_names_the_remedy(hub_folder, tmp_path):
    with pytest.raises(DatasetError) as caught:
        load_rows("d", dataset(kind="hub", id=str(hub_folder), split="no-such-split"), tmp_path)
    for word in ["dataset d", "no-such-split", "revision", "kind: path"]:
        assert word in str(caught.value)
    with pytest.raises(DatasetError, match="cannot load"):
        load_rows("d", dataset(kind="hub", id=str(Path(hub_folder) / "absent")), tmp_path)
