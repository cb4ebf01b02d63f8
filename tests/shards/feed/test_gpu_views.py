"""Loaders whose views or colours are a GPU's: the whole way of a batch, with DALI's graph for a GPU run on the CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import Colour, Loader, View
from shards.common.errors import OutOfMemory
from shards.dataset import Split
from shards.decode.colour import change_colour
from shards.decode.graph import Decode, GraphConfig, build
from shards.format.ppm import ppm
from shards.sampling.colour import BLUR, three_draws
from shards.sampling.views import plan_views, single
from tests.conftest import decoded, write_split
from tests.helpers.fake_gpu import DEVICE, Gpu
from tests.shards.test_loader import assert_left_out_of_every_view, damaged_split, normalised, stored

COLOUR = Colour(0.4, 0.4, 0.2, 0.1, jitter=0.8, gray=0.2, blur=0.5, solarize=0.2)
VIEWS = [View(24, scale=(0.4, 1.0), interpolation="bicubic", n=2, colour=COLOUR), View(12, scale=(0.05, 0.4), n=3)]
PLAIN = [replace(view, colour=Colour()) for view in VIEWS]


class OnCpu:
    """A pipeline of DALI's on the CPU, whose outputs are bound to a stream that is none."""

    def __init__(self, config: GraphConfig) -> None:
        decode: Decode = "raw" if config.decode == "raw" else "cpu"
        on_cpu = replace(config, device="cpu", decode=decode, device_id=None)
        self._inputs = on_cpu.inputs
        self._pipeline = build(on_cpu)

    def feed_input(self, name: str, data: Any) -> None:
        if name in self._inputs:  # which do not mirror a single image
            self._pipeline.feed_input(name, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def outputs(self, stream: Any) -> Any:
        return self._pipeline.outputs()


@pytest.fixture(autouse=True)
def dali(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.decode.graph.build", OnCpu)


def load(split: Split, **options: Any) -> Loader:
    gpu = {"device": "gpu", "device_id": DEVICE} if options.get("device") != "cpu" else {}
    usual = {"batch_size": 4, "train": True, "views": VIEWS, "threads": 1, "dtype": "uint8", "ids": True}
    return Loader(split, **{**usual, "drop_last": False, **gpu, **options})


def every(loader: Loader) -> dict[int, list[torch.Tensor]]:
    """The views of each sample of an epoch; of a loader without views its image."""
    found = {}
    with loader:
        for images, _, ids in loader:
            for place, sample in enumerate(ids.tolist()):
                found[sample] = [view[place] for view in (images if isinstance(images, list) else [images])]
    return found


def recoloured(image: torch.Tensor, operation: Any, strength: Any) -> torch.Tensor:
    pixels = image.permute(1, 2, 0).contiguous().numpy().copy()
    change_colour(pixels, operation, strength)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def distance(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("views", [VIEWS, PLAIN])
def test_views_are_lists_of_tensors_with_channels_last_and_labels(small_split: Split, views: list[View]) -> None:
    with load(small_split, views=views) as loader, load(small_split, views=views, device="cpu") as other:
        for (images, labels, ids), (expected, known, same) in zip(loader, other, strict=True):
            assert [view.shape for view in images] == [view.shape for view in expected]
            assert all(view.is_contiguous(memory_format=torch.channels_last) for view in images)
            assert labels.tolist() == known.tolist()
            assert ids.tolist() == same.tolist()


def test_views_are_a_cpus_within_the_distance_of_the_filters(small_split: Split) -> None:
    expected = every(load(small_split, views=PLAIN, device="cpu"))
    for sample, images in every(load(small_split, views=PLAIN)).items():
        for view, other in zip(images, expected[sample], strict=True):
            assert (view.int() - other.int()).abs().float().mean() < 1.5


def test_colours_change_as_on_a_cpu_after_the_resize_and_the_flip(small_split: Split) -> None:
    plain, found = every(load(small_split, views=PLAIN)), every(load(small_split))
    heights, widths = small_split.index.height, small_split.index.width
    _, planned = plan_views(single(VIEWS), np.arange(29), heights, widths, seed=0, epoch=0)
    assert sorted(found) == list(range(29))
    for sample, images in found.items():
        for number, view in enumerate(images):
            operation, strength = planned.operation[sample, number], planned.strength[sample, number]
            expected = recoloured(plain[sample][number], operation, strength)
            assert distance(view, expected) <= (1 if BLUR in operation else 0)


@pytest.mark.parametrize("views", [VIEWS, PLAIN])
def test_values_are_the_pixels_normalised(small_split: Split, views: list[View]) -> None:
    """By torch where colours change, and otherwise by the graph."""
    pixels = every(load(small_split, views=views))
    for sample, images in every(load(small_split, views=views, dtype="float32")).items():
        for view, other in zip(images, pixels[sample], strict=True):
            assert (view - normalised(other)).abs().max() < 1e-5


def test_batches_that_are_decoded_together_are_split_into_lists_of_views(
    small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(small_split) as loader:
        together = list(loader)
        assert loader._feed.config.graph.batch_size == 4 * 8
    monkeypatch.setattr("shards.defaults.DECODED_TOGETHER", 1)
    with load(small_split) as loader:
        for (images, labels, ids), (others, *rest) in zip(together, loader, strict=True):
            assert [labels.tolist(), ids.tolist()] == [each.tolist() for each in rest]
            assert all(torch.equal(view, other) for view, other in zip(images, others, strict=True))
            assert images[0].untyped_storage().nbytes() == images[0].numel()  # a copy of its own


def test_stored_pixels_have_the_views_of_their_jpegs(small_split: Split, tmp_path: Path) -> None:
    pixels = [ppm(decoded(stored(small_split, sample))) for sample in range(len(small_split))]
    raw = write_split(tmp_path, pixels, short_side=40, encoding="raw")
    expected = every(load(small_split))
    for sample, images in every(load(raw)).items():
        assert all(torch.equal(view, other) for view, other in zip(images, expected[sample], strict=True))


def test_damaged_samples_are_left_out_of_every_view(tmp_path: Path) -> None:
    assert_left_out_of_every_view(load, damaged_split(tmp_path))


@pytest.mark.parametrize("options", [{"crop": "rrc", "interpolation": "bicubic"}, {"padding": 8}])
def test_three_augment_changes_the_colours_of_what_the_graph_puts_out(
    small_split: Split, options: dict[str, Any]
) -> None:
    """Without flips, which the graph leaves out on a CPU."""
    usual: dict[str, Any] = {"views": None, "size": 32, "resize": 36, "crop": "random", "flip": False, **options}
    plain = every(load(small_split, **usual, device="cpu"))
    found = every(load(small_split, **usual, augment="three"))
    drawn = three_draws(np.arange(29), 0, 0)
    for sample, (image,) in found.items():
        expected = recoloured(plain[sample][0], drawn["operation"][sample], drawn["strength"][sample])
        assert (image.int() - expected.int()).abs().float().mean() < 1.5
    values = every(load(small_split, **usual, augment="three", dtype="float32"))
    assert all((values[sample][0] - normalised(image)).abs().max() < 1e-5 for sample, (image,) in found.items())


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("Unable to allocate")])
def test_memory_that_runs_out_where_views_are_finished_is_said_with_what_takes_less(
    small_split: Split, monkeypatch: pytest.MonkeyPatch, device: str, error: Exception
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr("shards.decode.tensors.change_colours", fails)
    monkeypatch.setattr("shards.decode.views.ViewTensors.__call__", fails)
    with load(small_split, device=device) as loader, pytest.raises(OutOfMemory, match="smaller batch_size"):
        next(iter(loader))
