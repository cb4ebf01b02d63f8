"""What nvJPEG says of itself, and what the loader makes of it."""

import ctypes
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.decode import nvjpeg
from shards.defaults import choose_decoder, choose_upsampling, cpu_suffices


class Library:
    """Stands for nvJPEG on a GPU with so many engines."""

    def __init__(self, engines: int | None) -> None:
        self._engines = engines
        self.destroyed = 0

    def nvjpegCreateSimple(self, handle: Any) -> int:
        return 0

    def nvjpegGetHardwareDecoderInfo(self, handle: Any, number: Any, cores: Any) -> int:
        if self._engines is None:
            return 9  # NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED
        ctypes.cast(number, ctypes.POINTER(ctypes.c_uint))[0] = self._engines
        return 0

    def nvjpegDestroy(self, handle: Any) -> int:
        self.destroyed += 1
        return 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU of a kind that has JPEG engines, beside a CPU that is too slow for it."""
    monkeypatch.setattr("shards.defaults.cpu_suffices", lambda cores, pixels: False)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    return monkeypatch


def test_the_version_is_that_of_the_installed_library() -> None:
    found = nvjpeg.version()
    if found is None:
        pytest.skip("nvJPEG is not installed here")
    assert found >= (12, 0)


def test_without_the_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "library", lambda: None)
    assert nvjpeg.version() is None
    assert nvjpeg.engines(0) is None


@pytest.mark.parametrize("number", [0, 7, None])
def test_the_engines_are_those_that_the_library_finds(gpu: pytest.MonkeyPatch, number: int | None) -> None:
    library = Library(number)
    gpu.setattr(nvjpeg, "library", lambda: library)
    assert nvjpeg.engines(0) == number
    assert library.destroyed == 1


@pytest.mark.parametrize(("engines", "expected"), [(0, "region"), (7, "hardware"), (None, "hardware")])
def test_auto_asks_the_library_before_it_believes_the_kind_of_gpu(
    gpu: pytest.MonkeyPatch, small_split: Split, engines: int | None, expected: str
) -> None:
    gpu.setattr(nvjpeg, "engines", lambda _: engines)
    assert choose_decoder(small_split, "auto", "gpu", 0) == expected


STORED_AT_256, ORIGINAL = 256 * 341, 400 * 350


@pytest.mark.parametrize(
    ("cores", "pixels", "enough"),
    [(16, STORED_AT_256, True), (12, STORED_AT_256, True), (8, STORED_AT_256, False), (1, STORED_AT_256, False),
     (16, ORIGINAL, False), (28, ORIGINAL, True), (1, 32 * 32, True)],
)  # fmt: skip
def test_a_cpu_is_enough_where_its_cores_decode_as_fast_as_any_recipe_trains(
    cores: int, pixels: float, enough: bool
) -> None:
    assert cpu_suffices(cores, pixels) == enough


@pytest.mark.parametrize(
    ("ranks", "threads", "weighed"), [(1, None, 16), (8, None, 2), (8, 6, 6)], ids=["alone", "shared", "asked for"]
)
def test_auto_weighs_the_cores_of_one_rank_and_the_images_as_stored(
    monkeypatch: pytest.MonkeyPatch, small_split: Split, ranks: int, threads: int | None, weighed: int
) -> None:
    asked: list[Any] = []

    def enough(cores: int, pixels: float) -> bool:
        asked.append((cores, pixels))
        return True

    monkeypatch.setattr("shards.defaults.cpu_suffices", enough)
    monkeypatch.setattr("shards.defaults.usable_cores", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert choose_decoder(small_split, "auto", "gpu", 0, threads) == "cpu"
    index = small_split.index
    assert asked == [(weighed, (index.height * index.width).mean())]


@pytest.mark.parametrize("decode", ["hardware", "hybrid"])
def test_engines_that_are_not_there_are_refused(gpu: pytest.MonkeyPatch, small_split: Split, decode: str) -> None:
    gpu.setattr(nvjpeg, "engines", lambda _: 0)
    with pytest.raises(UsageError, match="NVIDIA_DRIVER_CAPABILITIES"):
        choose_decoder(small_split, decode, "gpu", 0)


@pytest.mark.parametrize(
    ("version", "decode", "fancy"),
    [((13, 2), "region", True), ((13, 1), "region", False), ((12, 9), "hybrid", False), ((12, 9), "hardware", True)],
)
def test_an_old_library_decodes_regions_without_fancy_upsampling_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], decode: Any, fancy: bool
) -> None:
    monkeypatch.setattr(nvjpeg, "version", lambda: version)
    with nullcontext() if fancy else pytest.warns(UserWarning, match=r"nvJPEG 1\d\.\d cannot decode regions"):
        assert choose_upsampling(decode) == fancy
