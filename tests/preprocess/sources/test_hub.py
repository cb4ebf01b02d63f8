"""Data sets on the hub: each error of the library becomes one line that says what to do."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from preprocess.sources import hub, open_source
from shards.common.errors import ShardfeedError, UsageError
from tests import ROOT
from tests.conftest import jpeg, photo
from tests.helpers.fake_hub import fake_hub

datasets = pytest.importorskip("datasets")


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset)
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


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set in the hub's layout whose split train cannot be read, and which is opened as me/set."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": jpeg(photo(20, 30)), "path": None}] * 3, "label": [0, 1, 1]}
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features).to_parquet(root / "data" / "validation-00000-of-00001.parquet")
    (root / "data" / "train-00000-of-00001.parquet").write_bytes(b"not fetched")
    for name in ("load_dataset", "load_dataset_builder"):
        real = getattr(datasets, name)
        monkeypatch.setattr(
            datasets, name, lambda path, _real=real, **more: _real(str(root) if path == "me/set" else path, **more)
        )
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    return root


def test_a_split_that_is_not_wanted_is_not_downloaded(repository: Path) -> None:
    source = open_source("me/set", ["validation"])
    assert source.num_rows("validation") == 3
    assert source.class_names == ("cat", "dog")
    with pytest.raises(UsageError, match="me/set has no split test: it has train, validation"):
        open_source("me/set", ["test"])
    with pytest.raises(ShardfeedError, match="me/set cannot be loaded from the hub"):
        open_source("me/set")


@pytest.mark.slow
def test_only_the_files_of_wanted_splits_are_downloaded(repository: Path, tmp_path: Path) -> None:
    """The libraries themselves, which read HF_ENDPOINT when they are loaded, beside a hub on loopback."""
    code = """if True:
        from preprocess.sources import open_source
        print(open_source("me/set", ["validation"]).num_rows("validation"))
    """
    with fake_hub("me/set", repository) as served:
        variables = {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True
        )
    assert done.stdout == "3\n", done.stderr
    assert served.fetched == ["data/validation-00000-of-00001.parquet"]


def test_wanted_splits_open_again_without_the_hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_source("me/set", ["validation"])
    monkeypatch.setattr(hub, "_reachable", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset_builder", None)
    again = open_source("me/set", ["validation"])
    assert again.fingerprint == before.fingerprint
    assert again.row("validation", 2) == before.row("validation", 2)


def test_too_little_room_for_a_download_is_said_before_it_begins(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 0, 100))
    monkeypatch.setattr(datasets, "load_dataset", None)
    for splits in (["validation"], None):
        with pytest.raises(
            ShardfeedError, match=r"me/set from the hub needs about .* and 100 B are free there: .*HF_HOME"
        ):
            open_source("me/set", splits)
