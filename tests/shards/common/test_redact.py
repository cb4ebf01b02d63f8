"""Credentials stay out of messages."""

import pytest

from shards.common.redact import without_secrets
from tests.helpers.s3 import ACCESS, SECRET


def test_messages_lose_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    said = without_secrets(
        f"403 for url https://user:pw@host/x?X-Amz-Signature=0123abcd&part=2, key {ACCESS}, secret {SECRET}"
    )
    assert not any(word in said for word in (ACCESS, SECRET, "pw@", "0123abcd"))
    assert said.startswith("403 for url https://***@host/x?")
