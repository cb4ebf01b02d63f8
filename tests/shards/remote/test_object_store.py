"""Files behind URLs: what is a URL, what is tried again and how often, and what errors say."""

import errno
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import fsspec
import pytest

from shards.common.errors import Cancelled, MissingDependency, ShardfeedError, UsageError
from shards.remote.answers import retry_after
from shards.remote.object_store import ATTEMPTS, LONGEST_WISH, ObjectStore
from shards.remote.urls import is_url
from tests.helpers.s3 import ACCESS, S3, first

pytest_plugins = ("tests.helpers.s3_server",)


class Stalling(http.server.BaseHTTPRequestHandler):
    """Answers a GET with half of what it promises, then waits; `left` is set once the client is gone."""

    half, left = threading.Event(), threading.Event()

    def do_GET(self) -> None:
        self.send_response(206 if self.headers["Range"] else 200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(bytes(500))
        self.half.set()
        if not self.connection.recv(1):
            self.left.set()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stalling() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    Stalling.half.clear()
    Stalling.left.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, target, stop: store.read("name", stop),
        lambda store, target, stop: store.read_range("name", 0, 1000, stop),
        lambda store, target, stop: store.fetch("name", target, stop),
    ],
    ids=["whole", "range", "file"],
)
def test_a_stop_cancels_a_request_in_its_midst(
    ask: Callable[[ObjectStore, Path, threading.Event], Any], stalling: str, tmp_path: Path
) -> None:
    stop, ends = threading.Event(), list[BaseException]()

    def asking() -> None:
        try:
            ask(ObjectStore(stalling), tmp_path / "file", stop)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    assert Stalling.half.wait(60)
    stop.set()
    thread.join(60)
    assert [type(error) for error in ends] == [Cancelled]
    assert Stalling.left.wait(60)


def test_a_file_that_another_process_wrote_after_the_directory_was_listed_is_read(s3: S3, tmp_path: Path) -> None:
    store = ObjectStore(f"{s3.url}/out")
    s3.put("out/first", b"1")
    assert store.sizes() == {"first": 1}
    s3.put("out/second", b"22")
    assert store.read("second") == b"22"
    assert [file.name for file in store.below()] == ["first", "second"]
    s3.put("out/third", b"333")
    store.fetch("third", tmp_path / "third")
    assert store.read_range("third", 1, 2) == b"33"
    assert store.size("third") == 3


def test_a_store_that_cannot_be_written_is_said_so_without_trying_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise NotImplementedError  # as fsspec does for stores that are only read

    monkeypatch.setattr(fsspec.filesystem("memory"), "pipe_file", unknown)
    with pytest.raises(UsageError, match="memory://there/name cannot be written: memory:// does not offer that"):
        ObjectStore("memory://there").write("name", b"")


@pytest.mark.parametrize(
    ("place", "yes"),
    [("s3://a/b", True), ("https://a", True), ("/a/b", False), ("a:b", False), ("./s3:/a", False), ("C://", False)],
)
def test_urls(place: str, yes: bool) -> None:
    assert is_url(place) is yes


def test_urls_in_a_chain_are_refused_without_repeating_credentials() -> None:
    with pytest.raises(UsageError, match=r"URLs in a chain are not read: give the last one alone") as said:
        is_url("simplecache::http://me:pass@host/data")
    assert "pass" not in str(said.value)


def test_capitals_and_slashes_around_a_url_do_not_matter() -> None:
    assert ObjectStore("MEMORY://Bucket/data//") == ObjectStore("memory://Bucket/data")


@pytest.mark.parametrize(
    "url",
    ["https://me:pass@host/data", "https://token@host/data", "s3://key:pass@bucket/data", "https://h/d?sig=abcdef"],
)
def test_a_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(UsageError, match="holds a user, a password or a query") as said:
        ObjectStore(url)
    assert not any(word in str(said.value) for word in ("me:", "pass@", "token@", "abcdef"))


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(UsageError, match="fsspec knows no nosuch://"):
        ObjectStore("nosuch://a/b")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError(scheme)

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(MissingDependency, match=r"s3://a/b cannot be opened: pip install 'shardfeed\[s3\]'"):
        ObjectStore("s3://a/b")


class Failing:
    """Stands for the way of fsspec's memory to read a file: fails with `error` so many times."""

    def __init__(self, error: Exception, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error, self.times, self.calls = error, times, 0
        monkeypatch.setattr("shards.remote.object_store.FIRST_PAUSE", 0.001)
        monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", lambda _, path, **more: self(path, **more))

    def __call__(self, path: str, **_: Any) -> bytes:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return b"content"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), TimeoutError(), ValueError("a strange answer")])
def test_what_may_pass_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(error, ATTEMPTS - 1, monkeypatch)
    assert ObjectStore("memory://there").read("name") == b"content"
    assert failing.calls == ATTEMPTS


def test_what_never_passes_is_an_error_after_so_many_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(ConnectionResetError("by peer"), 1000, monkeypatch)
    with pytest.raises(
        ShardfeedError,
        match=r"memory://there/name cannot be read \(8 attempts; the last: ConnectionResetError: by peer\): check the",
    ):
        ObjectStore("memory://there").read("name")
    assert failing.calls == ATTEMPTS == 8


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (FileNotFoundError("name"), FileNotFoundError, "name"),
        (
            PermissionError("Access Denied"),
            ShardfeedError,
            "cannot be read: PermissionError: Access Denied; are the cred",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "file"), PermissionError, "Permission denied"),
        (OSError(errno.ENOSPC, "No space left"), OSError, "No space left"),
        (NotImplementedError(), UsageError, "cannot be read: memory:// does not offer that"),
        (KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
    ],
)
def test_what_will_not_pass_is_tried_once(
    error: Exception, raised: type[BaseException], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(error, 1000, monkeypatch)
    with pytest.raises(raised, match=said):
        ObjectStore("memory://there").read("name")
    assert failing.calls == (2 if "Access Denied" in said else 1)  # with the credentials as they are now


def test_pauses_grow_and_half_of_each_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(OSError("broken"), 1000, monkeypatch)
    monkeypatch.setattr("shards.remote.object_store.FIRST_PAUSE", 0.5)
    pauses: list[float] = []

    class Noted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return False

    with pytest.raises(ShardfeedError):
        ObjectStore("memory://there").read("name", Noted())
    assert failing.calls == ATTEMPTS
    full = [0.5, 1, 2, 4, 8, 16, 30]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, full, strict=True))


class NotedPauses(threading.Event):
    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        return False


def test_a_store_that_asks_to_wait_is_obeyed_and_says_so(
    s3: S3, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.remote.answers._said_until", 0.0)
    s3.put("name", b"content")
    s3.fault = first(2, "busy", suffix="name")
    stop = NotedPauses()
    assert ObjectStore(s3.url).read("name", stop) == b"content"
    assert [round(pause) for pause in stop.pauses] == [70, 70]
    assert capsys.readouterr().err == f"{s3.url} is busy and asks to wait 70 s before the next attempt\n"


class Busy(Exception):
    """As aiohttp's error of an answer."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("429, message='Too Many Requests'")
        self.status, self.headers = 429, headers


def test_no_store_is_waited_for_longer_than_the_bound(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.remote.answers._said_until", 0.0)
    Failing(Busy({"Retry-After": "86400"}), 1, monkeypatch)
    stop = NotedPauses()
    assert ObjectStore("memory://there").read("name", stop) == b"content"
    assert stop.pauses == [pytest.approx(LONGEST_WISH, abs=0.1)]
    assert "asks to wait 86,400 s before the next attempt; waiting 600 s, the longest wait" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("70", 70), ("1.5", 1.5), ("-3", 0), ("in a date", 100), ("soon", None)],
)
def test_wishes_of_servers(value: str, seconds: float | None) -> None:
    value = formatdate(time.time() + 100, usegmt=True) if value == "in a date" else value
    error = OSError("broken")
    error.__cause__ = Busy({"retry-after": value})
    assert retry_after(error) == (None if seconds is None else pytest.approx(seconds, abs=5))


def test_credentials_that_were_renewed_are_taken_up(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("name", b"content")
    store = ObjectStore(s3.url)
    assert store.read("name") == b"content"
    s3.fault = lambda request: "expired" if request.key == ACCESS else ""
    s3.requests.clear()
    with pytest.raises(ShardfeedError, match=r"cannot be read: PermissionError: .*; are the credentials right"):
        store.read("name")
    assert len(s3.requests) < 20  # of two attempts, not eight: the library looks up to five times in each
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIARENEWEDRENEWEDRE")
    assert store.read("name") == b"content"
    s3.requests.clear()
    assert store.read("name") == b"content"
    assert {request.key for request in s3.requests} == {"AKIARENEWEDRENEWEDRE"}


def test_a_fragment_never_reaches_a_web_server() -> None:
    with pytest.raises(UsageError, match="https://host/data#main holds a #"):
        ObjectStore("https://host/data#main")
    assert ObjectStore("memory://host/data#main").url == "memory://host/data#main"


def test_a_stop_ends_a_pause_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(OSError("broken"), 1000, monkeypatch)
    monkeypatch.setattr("shards.remote.object_store.FIRST_PAUSE", 60)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        ObjectStore("memory://there").read("name", stop)
    assert time.monotonic() - began < 10
    assert failing.calls == 1
