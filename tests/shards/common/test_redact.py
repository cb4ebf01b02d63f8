"""Credentials stay out of messages."""

import pytest

from shards.common.redact import without_secrets, without_users
from tests.helpers.s3 import ACCESS, SECRET


def test_messages_lose_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    said = without_secrets(
        f"403 for url https://user:pw@host/x?X-Amz-Signature=0123abcd&part=2, key {ACCESS}, secret {SECRET}"
    )
    assert not any(word in said for word in (ACCESS, SECRET, "pw@", "0123abcd"))
    assert said.startswith("403 for url https://***@host/x?")


@pytest.mark.parametrize(
    "place",
    [
        "simplecache::http://user:PASSWORD@host/x",
        "simplecache::http:/user:PASSWORD@host/x",
        "http:/user:PASSWORD@host/x",
        "user:PASSWORD@host",
        "user%3APASSWORD%40host/x",
        "user%3aPASSWORD@host",
        "s3://user:PASS/WORD@host/x",
        "there is no directory (user:PASSWORD@host)",
        "https://PASSWORD@host",
    ],
)
def test_users_are_masked_wherever_they_stand(place: str) -> None:
    said = without_secrets(place)
    assert "WORD" not in said
    assert "***@host" in said


@pytest.mark.parametrize(
    "harmless",
    [
        "hf://datasets/me/set@main/data: 3 files",
        "git@github.com:me/x",
        "at 12:30, /data/a:b/c",
        "train: 3 of n01440764@2",
        "C:/data",
    ],
)
def test_other_words_stay(harmless: str) -> None:
    assert without_secrets(harmless) == harmless


def test_the_longest_passwords_are_hidden_and_long_words_without_any_stay() -> None:
    password, word = "a1:" * 166, "x" * 100_000
    for place in (f"http://user:{password}@host/x", f"http:/user:{password}@host/x"):
        assert without_users(f"at {place}") == f"at {place.partition('user')[0]}***@host/x"
    assert without_users(f"@ {word}") == f"@ {word}"
