"""Fixtures that several test files share: images and data sets made in memory, and the real ones where they are."""

import os

# Before torch is loaded, here and in every process that a test starts: small tensors gain nothing from threads, and
# threads that wait for each other on busy cores cost a lot.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.dataset import Split
from tests.helpers.datasets import decoded, jpeg, photo, write_split

# No test cuts the power, and waiting for a disk takes longer than most tests. Forks have this too (helpers/forks.py).
os.fsync = lambda fd: None

__all__ = ["SHARED", "decoded", "jpeg", "photo", "write_split"]

# A shell that runs the tests in the background, or nohup, has these ignored, and processes that tests start and
# then stop by a signal would inherit that.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

with contextlib.suppress(ImportError):  # tests/gpu needs none
    import hypothesis

    # An example may be slow on a machine that does other things too; that is no failure.
    hypothesis.settings.register_profile("shardfeed", deadline=None)
    hypothesis.settings.load_profile("shardfeed")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped, with the reason, where there is no GPU. Files with slow tests come first.

    `make test` hands whole files to two processes: a long one that comes last would leave one of them idle.
    """
    import torch

    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def small_split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """29 images of 40 to 64 pixels, shorter side 40, in 5 shards."""
    sizes = [(40, 40 + i % 25) if i % 2 else (40 + i % 13, 40) for i in range(29)]
    images = [jpeg(photo(height, width, seed)) for seed, (height, width) in enumerate(sizes)]
    return write_split(tmp_path_factory.mktemp("small"), images, short_side=40)


@pytest.fixture(scope="session")
def real_images() -> list[bytes]:
    """60 real ImageNet JPEGs, as they are; skips where they are absent."""
    import pyarrow.parquet as pq

    files = sorted((SHARED / "imagenet-sample" / "data").glob("validation-*.parquet"))
    if not files:
        pytest.skip("the real sample images are not on this machine")
    rows = pq.read_table(files[0], columns=["image"]).slice(0, 60).column("image")
    return [row["bytes"].as_py() for row in rows]


@pytest.fixture
def tf32_as_before() -> Iterator[None]:
    """Puts back whether products are rounded to TF32, which is a setting of the process."""
    import torch

    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolution
