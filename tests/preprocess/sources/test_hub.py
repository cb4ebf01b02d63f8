"""Data sets on the hub: each error of the library becomes one line that says what to do."""

import pytest

from preprocess.sources import hub, open_source
from shards.common.errors import ShardfeedError, UsageError

datasets = pytest.importorskip("datasets")


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "_reachable", lambda: True)


def test_a_gated_data_set_prints_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.exceptions import DatasetNotFoundError

    message = "Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub. You must be authenticated to access it."
    refusing(monkeypatch, DatasetNotFoundError(message))
    with pytest.raises(
        ShardfeedError, match=r"Accept the terms on https://.*ILSVRC/imagenet-1k .*hf auth login.*try again"
    ):
        open_source("ILSVRC/imagenet-1k")


def test_an_unknown_data_set_may_also_have_been_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.exceptions import DatasetNotFoundError

    refusing(monkeypatch, DatasetNotFoundError("Dataset 'no/such' doesn't exist on the Hub or cannot be accessed."))
    with pytest.raises(UsageError, match="no/such is neither a directory here nor a data set on the hub"):
        open_source("no/such")


def test_no_network_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, ConnectionError("Couldn't reach 'some/set' on the Hub (LocalEntryNotFoundError)"))
    with pytest.raises(ShardfeedError, match="hub cannot be reached") as caught:
        open_source("some/set")
    assert not isinstance(caught.value, UsageError)


def test_other_errors_of_the_library_are_passed_on_with_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, ValueError("Config name is missing.\nPlease pick one"))
    with pytest.raises(
        ShardfeedError, match=r"some/set cannot be loaded from the hub: ValueError: Config name is missing\."
    ):
        open_source("some/set")


def test_an_unreachable_hub_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `load_dataset`, with the hub's address replaced by one where nothing listens."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    retried: list[float] = []
    monkeypatch.setattr("time.sleep", retried.append)
    with pytest.raises(ShardfeedError, match="hub cannot be reached"):
        open_source("no-such-owner/no-such-set")
    assert not retried
    assert not datasets.config.HF_HUB_OFFLINE
