"""A real S3 server (moto's) on loopback: `pytest_plugins = ("tests.helpers.s3_server",)` brings the fixture `s3`."""

import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.s3 import ACCESS, S3, SECRET, Request


class _Faulty:
    """A WSGI application around moto's that records requests and plants faults."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.s3: S3 | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        signed = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        request = Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", ""), signed)
        s3 = self.s3
        if s3 is None or not request.path.startswith(f"/{s3.bucket}"):
            answer: Iterable[bytes] = self.app(environ, start_response)
            return answer
        s3.requests.append(request)
        fault = s3.fault(request)
        if fault == "error":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        if fault == "busy":
            start_response("503 Service Unavailable", [("Content-Length", "0"), ("Retry-After", "70")])
            return []
        if fault == "expired":
            said = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(said)))])
            return [said]
        if fault == "slow":
            time.sleep(0.3)
        if fault not in ("cut", "wrong"):
            return self.app(environ, start_response)  # type: ignore[no-any-return]
        status: list[Any] = []
        body = b"".join(self.app(environ, lambda *given: status.extend(given)))
        headers = [pair for pair in status[1] if not pair[0].lower().startswith("x-amz-checksum")]
        start_response(status[0], headers)
        if fault == "cut":
            return _cut(body)
        middle = len(body) // 2
        return [body[:middle], bytes([body[middle] ^ 1]), body[middle + 1 :]]


def _cut(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("planted")


@pytest.fixture(scope="session")
def _server() -> Iterator[tuple[str, _Faulty]]:
    pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    import logging

    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

    faulty = _Faulty(moto.DomainDispatcherApplication(moto.create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", faulty
    server.shutdown()


@pytest.fixture
def s3(_server: tuple[str, _Faulty], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """An empty bucket, credentials for it in the environment, and short pauses between attempts."""
    endpoint, faulty = _server
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("shards.remote.object_store.FIRST_PAUSE", 0.01)
    import fsspec

    s3 = S3(f"bucket-{uuid.uuid4().hex[:8]}", endpoint)
    fsspec.filesystem("s3").mkdir(s3.bucket)
    faulty.s3 = s3
    yield s3
    faulty.s3 = None
