"""One bucket of the S3 server of tests/helpers/s3_server.py: the requests it received, and faults to plant."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCESS, SECRET = "AKIATESTTESTTESTTEST", "s3cr3t/that+must=never/appear"


@dataclass(frozen=True)
class Request:
    """A client's request. `range`: its header, "" for a whole object; `key`: the id of the key that signed it."""

    method: str
    path: str
    range: str
    key: str = ""


# The fault of the answer to a request: "error" (500), "slow", "cut" (half of it), "wrong" (a bit changed), "busy" (503,
# asking to wait 70 s), "expired" (403), "" (none).
Fault = Callable[[Request], str]


@dataclass
class S3:
    """A bucket of the server, the requests it has received, and the fault of each answer."""

    bucket: str
    endpoint: str
    requests: list[Request] = field(default_factory=list)
    fault: Fault = lambda request: ""

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    def gets(self, suffix: str = ".tar") -> list[str]:
        """The names of the objects read so far, whole or in parts; those that end in `suffix`."""
        return [r.path.rpartition("/")[2] for r in self.requests if r.method == "GET" and r.path.endswith(suffix)]

    def upload(self, root: Path, prefix: str = "data") -> str:
        """Puts a directory into the bucket, past the server; returns its URL."""
        for path in root.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(root)}", path.read_bytes())
        return f"{self.url}/{prefix}"

    def put(self, name: str, data: bytes) -> None:
        """Puts an object into the bucket, past the server."""
        self._backend.put_object(self.bucket, name, data)

    def remove(self, prefix: str) -> None:
        """Removes all objects whose names begin with `prefix`, past the server."""
        for name in [name for name in self._backend.buckets[self.bucket].keys if name.startswith(prefix)]:
            self._backend.delete_object(self.bucket, name)

    @property
    def _backend(self) -> Any:
        from moto.s3.models import s3_backends

        (backend,) = (account["aws"] for account in s3_backends.values() if self.bucket in account["aws"].buckets)
        return backend

    def tree(self, prefix: str) -> dict[str, bytes]:
        """The content of every object below a prefix, by the rest of its name."""
        import fsspec

        files = fsspec.filesystem("s3")
        files.invalidate_cache()
        start = len(f"{self.bucket}/{prefix}/")
        return {path[start:]: files.cat_file(path) for path in files.find(f"{self.bucket}/{prefix}")}


def first(times: int, fault: str, suffix: str = ".tar", method: str = "GET") -> Fault:
    """Plants `fault` in the first `times` answers for each object whose name ends in `suffix`."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def spoil(request: Request) -> str:
        if request.method != method or not request.path.endswith(suffix):
            return ""
        with lock:
            seen[request.path] = seen.get(request.path, 0) + 1
            return fault if seen[request.path] <= times else ""

    return spoil
