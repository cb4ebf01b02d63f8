"""The part of the Hub's HTTP interface that loading a data set needs, on loopback, over the files of a directory.

With HF_ENDPOINT set to its URL, `huggingface_hub` and `datasets` themselves make the requests, which it records.
"""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running hub with one data set. `fetched`: the files whose bytes were sent, by their path there."""

    url: str = ""
    fetched: list[str] = field(default_factory=list)


@contextmanager
def fake_hub(name: str, root: Path) -> Iterator[Hub]:
    """Serves the files below `root` as the data set `name` ("me/set") until the block ends."""
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            """paths-info: what is known of the files that the body names."""
            form = self.rfile.read(int(self.headers["Content-Length"]))
            wanted = json.loads(form)["paths"]
            self.answer(json.dumps([entry for entry in entries() if entry["path"] in wanted]).encode())

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            api, resolve = f"api/datasets/{name}", f"datasets/{name}/resolve/"
            if path == "":
                self.answer(b"")
            elif path == api or path.startswith(f"{api}/revision/"):
                self.answer(json.dumps(description()).encode())
            elif path.startswith(f"{api}/tree/"):
                below = path.removeprefix(f"{api}/tree/").partition("/")[2] or "."
                deep = "recursive=true" in self.path.lower()
                there = [each for each in entries() if deep or str(Path(each["path"]).parent) == below]
                self.answer(json.dumps([each for each in there if Path(each["path"]).is_relative_to(below)]).encode())
            elif (
                path.startswith(resolve) and (root / (asked := path.removeprefix(resolve).partition("/")[2])).is_file()
            ):
                self.answer((root / asked).read_bytes(), asked)
            else:
                self.answer(b"", status=404)

        def answer(self, body: bytes, file: str | None = None, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            if file is not None:
                self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                if file is not None:
                    hub.fetched.append(file)

    def entries() -> list[dict[str, Any]]:
        return [
            {
                "type": "file" if path.is_file() else "directory",
                "path": path.relative_to(root).as_posix(),
                "size": path.stat().st_size if path.is_file() else 0,
                "oid": hashlib.sha1(path.read_bytes() if path.is_file() else b"").hexdigest(),
            }
            for path in sorted(root.rglob("*"))
        ]

    def description() -> dict[str, Any]:
        siblings = [{"rfilename": entry["path"]} for entry in entries() if entry["type"] == "file"]
        return {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False, "gated": False}

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
