"""The graph that cuts several views on a GPU: its operators there, and its pixels where it runs on a CPU."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nvidia.dali import types

from shards import View
from shards.dataset import Split
from shards.decode.graph import Decode, DType, GraphDecoder
from shards.decode.views import StoredRegions, ViewTensors
from shards.feed.plan import Planner, SamplingConfig
from shards.format.ppm import ppm
from shards.sampling.batch import Cursor
from shards.sampling.order import Share
from shards.sampling.views import single
from tests.conftest import decoded, write_split
from tests.shards.decode.test_graph import graph, nodes, operators
from tests.shards.test_loader import stored

VIEWS = single([View(24, scale=(0.4, 1.0), n=2, interpolation="bicubic"), View(12, scale=(0.05, 0.4))])
# The distance of the graph's views on a CPU from those of shards/decode/views.py, in levels: in the mean of a view over
# all samples, and of any value. docs/loader.md states it.
MEAN, MOST = 0.5, 8
NUMBERS = ("_TensorSubscript", "cpu")


@pytest.mark.parametrize(
    ("decode", "before"),
    [
        ("cpu", [("decoders__ImageSlice", "cpu")]),
        ("region", [("decoders__ImageSlice", "mixed")]),
        ("hybrid", [("decoders__ImageSlice", "mixed")]),
        ("hardware", [("decoders__Image", "mixed"), ("Slice", "gpu")]),
        ("raw", [("Slice", "gpu")]),
    ],
)
def test_each_sample_is_decoded_once_and_its_views_are_cut_resized_and_mirrored_on_the_gpu(
    decode: Decode, before: list[tuple[str, str]]
) -> None:
    found = operators(graph("gpu", decode=decode, resize=False, views=VIEWS))
    assert found[: len(before)] == before
    view = [NUMBERS, NUMBERS, ("Slice", "gpu"), ("Resize", "gpu"), NUMBERS, ("CropMirrorNormalize", "gpu")]
    assert found[len(before) :] == view * 3


def test_each_view_has_its_own_place_size_and_filter() -> None:
    found = nodes(graph("gpu", resize=False, views=VIEWS))
    assert [values["at_0"] for name, values in found if name == "_TensorSubscript"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    resizes = [values for name, values in found if name == "Resize"]
    assert [np.frombuffer(each["size"][-6:-2], np.float32)[0] for each in resizes] == [24, 24, 12]
    cubic, linear = int(types.INTERP_CUBIC), int(types.INTERP_LINEAR)
    assert [each["interp_type"] for each in resizes] == [cubic, cubic, linear]
    assert {each["antialias"] for each in resizes} == {1}


@pytest.mark.parametrize("views", [(), VIEWS])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_pixels_come_out_where_colours_change_afterwards(dtype: DType, views: tuple[View, ...]) -> None:
    kinds = {"float32": types.FLOAT, "float16": types.FLOAT16, "uint8": types.UINT8}
    for recoloured, expected in ((False, kinds[dtype]), (True, types.UINT8)):
        found = nodes(graph("gpu", dtype, resize=not views, views=views, recoloured=recoloured))
        last = [values for name, values in found if name == "CropMirrorNormalize"]
        assert {each["dtype"] for each in last} == {int(expected)}
        deviation = np.frombuffer(last[0]["std"][-6:-2], np.float32)[0]
        assert (deviation == 1) == (expected == types.UINT8)


@pytest.mark.parametrize("raw", [False, True])
def test_the_graph_gives_the_views_that_a_cpu_makes(small_split: Split, tmp_path: Path, raw: bool) -> None:
    """The graph for a GPU, run on a CPU: the same windows, sizes and flips, by DALI's filter."""
    split = small_split
    if raw:
        pixels = [ppm(decoded(stored(small_split, sample))) for sample in range(len(small_split))]
        split = write_split(tmp_path, pixels, short_side=40, encoding="raw")
    count = len(split.index.offset[split.index.shard == 0])
    sampling = SamplingConfig(Share(count), 0, 0, "index", "rrc", True, resize=40, size=24, views=VIEWS)
    with contextlib.closing(Planner(split, sampling, Cursor(0, 0), check=False)) as planner:
        batch = planner.next()
    file = split.shard_paths[0].read_bytes()
    places = zip(batch.ranges.offset.tolist(), batch.ranges.size.tolist(), strict=True)
    data = [np.frombuffer(bytearray(file[at : at + size]), np.uint8) for at, size in places]
    plain, cuts = (
        replace(graph("cpu", "uint8", decode="raw" if raw else "cpu", resize=False, views=views), batch_size=count)
        for views in ((), VIEWS)
    )
    with (
        contextlib.closing(StoredRegions(plain) if raw else GraphDecoder(plain)) as regions,
        contextlib.closing(ViewTensors(plain)) as tensors,
        contextlib.closing(GraphDecoder(cuts)) as decoder,
    ):
        regions.push(batch, data)
        expected, _ = tensors(regions.pop(), batch)
        decoder.push(batch, data)
        found = [torch.from_numpy(np.array(output.as_tensor())) for output in decoder.pop()]
    assert [view.shape for view in found] == [(count, size, size, 3) for size in (24, 24, 12)]
    for view, other in zip(found, expected, strict=True):
        difference = (view.permute(0, 3, 1, 2).int() - other.int()).abs()
        assert difference.float().mean() <= MEAN
        assert difference.max() <= MOST
