import contextlib
import gc
import importlib
import itertools
import struct
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from nvidia.dali import types

from shards.common.errors import UsageError
from shards.dataset import Split
from shards.decode import MEAN, STD
from shards.decode.finish import Finisher
from shards.decode.graph import Decode, Device, DType, GraphConfig, GraphDecoder, build, out_of_memory
from shards.feed.plan import Planner, SamplingConfig
from shards.sampling.batch import Cursor
from shards.sampling.order import Share
from shards.sampling.policies import Policy


def graph(
    device: Device, dtype: DType = "float32", *, resize: bool = True, decode: Decode | None = None, **options: Any
) -> GraphConfig:
    chosen: Decode = decode or ("cpu" if device == "cpu" else "region")
    return GraphConfig(device=device, decode=chosen, dtype=dtype, batch_size=4, resize=resize, threads=2, **options)


def fields(message: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """The fields of a protobuf message: (number, content), bytes for what has a length."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        kind, start = tag & 7, at
        if kind == 0:
            yield tag >> 3, varint()
        elif kind == 2:
            size = varint()
            at += size
            yield tag >> 3, message[at - size : at]
        else:
            at += {1: 8, 5: 4}[kind]
            yield tag >> 3, struct.unpack({1: "<d", 5: "<f"}[kind], message[start:at])[0]


def blocks(message: bytes) -> list[bytes]:
    """The fields of a message that have a length."""
    return [content for _, content in fields(message) if isinstance(content, bytes)]


def nodes(wanted: GraphConfig) -> list[tuple[str, dict[str, Any]]]:
    """The operators of the serialised graph, sources left out, in order: the name of each, and its arguments."""
    found = []
    for operator in blocks(build(wanted).serialize()):
        parts = blocks(operator) if operator[:1] == b"\n" else []
        if not parts or parts[0] == b"ExternalSource":
            continue
        arguments = [[value for _, value in fields(part)] for part in parts[1:] if part[:1] == b"\n"]
        values = {each[0].decode(): each[2] for each in arguments if len(each) > 2 and isinstance(each[0], bytes)}
        if "device" in values:
            found.append((parts[0].decode(), values))
    return found


def operators(wanted: GraphConfig) -> list[tuple[str, str]]:
    """(name, device) of each operator."""
    return [(name, values["device"].decode()) for name, values in nodes(wanted)]


def decoder(wanted: GraphConfig) -> dict[str, Any]:
    """The arguments of the decoder."""
    (found,) = (values for name, values in nodes(wanted) if name.startswith("decoders"))
    return found


def test_the_gpu_graph_decodes_mixed_and_finishes_on_the_gpu() -> None:
    assert operators(graph("gpu", "float16")) == [
        ("decoders__ImageSlice", "mixed"),
        ("Resize", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]


def test_the_gpu_graph_normalises_by_the_mean_and_deviation_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[dict[str, Any]] = []
    fn: Any = importlib.import_module("nvidia.dali.fn")
    normalise = fn.crop_mirror_normalize

    def recorded(images: Any, **options: Any) -> Any:
        taken.append(options)
        return normalise(images, **options)

    monkeypatch.setattr(fn, "crop_mirror_normalize", recorded)
    mean, std = (0.5, 0.25, 0.0), (0.5, 1.0, 0.125)
    for wanted in (graph("gpu", mean=mean, std=std), graph("gpu"), graph("gpu", "uint8")):
        build(wanted)
    assert [(each["mean"], each["std"]) for each in taken] == [
        ([127.5, 63.75, 0.0], [127.5, 255.0, 31.875]),
        ([255 * value for value in MEAN], [255 * value for value in STD]),
        ([0.0] * 3, [1.0] * 3),
    ]


def test_pixels_are_not_normalised_so_a_mean_for_them_is_refused() -> None:
    with pytest.raises(UsageError, match="dtype='uint8' gives pixels as they are: mean and std do not apply"):
        graph("cpu", "uint8", mean=(0.5, 0.5, 0.5))


def test_the_gpu_graph_may_decode_on_the_cpu_and_does_the_rest_on_the_gpu() -> None:
    assert operators(graph("gpu", "float16", decode="cpu")) == [
        ("decoders__ImageSlice", "cpu"),
        ("Resize", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]


def test_the_engines_decode_whole_images_and_the_region_is_cut_out_before_it_is_resized() -> None:
    assert operators(graph("gpu", "float16", decode="hardware")) == [
        ("decoders__Image", "mixed"),
        ("Slice", "gpu"),
        ("Resize", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]


def test_a_window_of_the_right_size_is_cut_from_what_the_engines_decode() -> None:
    assert operators(graph("gpu", "float16", decode="hardware", resize=False)) == [
        ("decoders__Image", "mixed"),
        ("Slice", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]


def test_engines_and_cores_share_regions() -> None:
    assert operators(graph("gpu", "float16", decode="hybrid")) == [
        ("decoders__ImageSlice", "mixed"),
        ("Resize", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]


@pytest.mark.parametrize(
    ("decode", "load", "expected"),
    [
        ("region", None, 0.0),
        ("hybrid", None, None),
        ("hybrid", 0.875, 0.875),
        ("hardware", None, None),
        ("hardware", 0.0, 0.0),
        ("cpu", None, None),
    ],
)
def test_the_engines_get_their_share_of_a_batch_and_nothing_of_one_for_the_cores(
    decode: Decode, load: float | None, expected: float | None
) -> None:
    """Where DALI is told nothing, it gives the engines 0.65, of regions too."""
    assert decoder(graph("gpu", decode=decode, hw_decoder_load=load)).get("hw_decoder_load") == expected


def test_the_memory_of_the_engines_is_taken_for_the_largest_image() -> None:
    told = decoder(graph("gpu", decode="hardware", largest=(375, 500)))
    assert (told["preallocate_height_hint"], told["preallocate_width_hint"]) == (375, 500)


@pytest.mark.parametrize("decode", ["region", "hybrid", "hardware", "cpu"])
@pytest.mark.parametrize("fancy", [True, False])
def test_chroma_is_upsampled_as_it_is_asked_for(decode: Decode, fancy: bool) -> None:
    assert decoder(graph("gpu", decode=decode, fancy_upsampling=fancy))["jpeg_fancy_upsampling"] == fancy


ALL: list[Decode] = ["cpu", "region", "hardware", "hybrid", "raw"]


@pytest.mark.parametrize(
    ("decode", "resize", "dtype", "augment"),
    [
        *itertools.product(ALL, [True, False], ["float32", "float16", "uint8"], [None]),
        *itertools.product(["region"], [True], ["float16"], ["trivial", "rand", "auto"]),
    ],
)
def test_every_graph_for_a_gpu_can_be_built_and_finishes_there(
    decode: Decode, resize: bool, dtype: DType, augment: Policy | None
) -> None:
    found = operators(graph("gpu", dtype, decode=decode, resize=resize, augment=augment))
    decoders = [(name, device) for name, device in found if name.startswith("decoders")]
    slices = "decoders__ImageSlice" if decode in ("cpu", "region", "hybrid") else "decoders__Image"
    assert decoders == ([] if decode == "raw" else [(slices, "cpu" if decode == "cpu" else "mixed")])
    assert found[-1] == ("CropMirrorNormalize", "gpu")
    assert {device for _, device in found[1:]} <= {"gpu", "cpu", "mixed"}
    assert ("Resize", "gpu") in found or not resize


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("std::bad_alloc"), True),
        (RuntimeError("CUDA allocation failed"), True),
        (RuntimeError("Can't allocate 123456 bytes on device 0."), True),
        (RuntimeError("nvjpeg error (5): Allocator failure"), True),
        (RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory"), True),
        (RuntimeError("Failed to decode sample #3"), False),
    ],
)
def test_memory_that_ran_out_is_told_from_an_image_that_cannot_be_decoded(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) == expected


def test_a_closed_graph_is_freed_at_once_and_not_by_the_garbage_collector() -> None:
    """Its memory on a GPU goes with it."""
    gc.disable()
    try:
        made = GraphDecoder(graph("cpu"))
        made._pipeline.build()
        pipeline = weakref.ref(made._pipeline)
        made.restart()
        assert pipeline() is None
        pipeline = weakref.ref(made._pipeline)
        made.close()
        assert pipeline() is None
    finally:
        gc.enable()


def test_stored_pixels_are_not_decoded() -> None:
    names = [name for name, _ in operators(graph("gpu", "float16", decode="raw", resize=False))]
    assert [name for name in names if "Decode" in name or "decoders" in name] == []
    assert names[-2:] == ["Slice", "CropMirrorNormalize"]


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cpu", {"decode": "region"}, "needs device='gpu'"),
        ("cpu", {"decode": "hardware"}, "needs device='gpu'"),
        ("gpu", {"decode": "cpu", "whole": True}, "whole is for"),
        ("cpu", {"decode": "raw", "whole": True}, "whole is for"),
        ("gpu", {"decode": "region", "fast_idct": True}, "fast_idct is for"),
        ("gpu", {"decode": "region", "hw_decoder_load": 0.5}, "for decode='hardware'"),
        ("gpu", {"decode": "hardware", "hw_decoder_load": 1.5}, "from 0 to 1"),
    ],
)
def test_options_that_would_do_nothing_are_refused(device: Device, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        graph(device, **options)


@pytest.mark.parametrize("resize", [True, False])
@pytest.mark.parametrize("augment", [None, "trivial"])
def test_padding_comes_after_the_resize_and_before_policy_and_mirror(resize: bool, augment: Policy | None) -> None:
    plain, padded = (operators(graph("gpu", resize=resize, augment=augment, pads=pads)) for pads in (False, True))
    before = 2 if resize else 1
    assert padded[:before] == plain[:before]
    assert padded[before:] == [("Cast", "cpu"), ("_ArithmeticGenericOp", "cpu"), ("Slice", "gpu"), *plain[before:]]


@pytest.mark.parametrize("resize", [40, 50])
def test_the_graph_moves_images_as_a_cpu_does_after_it(small_split: Split, resize: int) -> None:
    sampling = SamplingConfig(Share(4), 0, 0, "index", "random", True, resize=resize, size=32, padding=20)
    with contextlib.closing(Planner(small_split, sampling, Cursor(0, 0), check=False)) as planner:
        batch = planner.next()
    file = small_split.shard_paths[0].read_bytes()
    pieces = [slice(at, at + size) for at, size in zip(batch.ranges.offset, batch.ranges.size, strict=True)]
    data = [np.frombuffer(bytearray(file[piece]), np.uint8) for piece in pieces]

    def images(pads: bool) -> np.ndarray:
        with contextlib.closing(GraphDecoder(graph("cpu", resize=resize != 40, pads=pads))) as decoder:
            decoder.push(batch, data)
            return np.array(decoder.pop().as_tensor())

    expected = images(pads=False)
    with contextlib.closing(Finisher(1)) as finisher:
        finisher.shift(expected, batch.windows.shift)
    assert batch.windows.shift.any(axis=1).all()
    assert np.array_equal(images(pads=True), expected)


def test_the_cpu_graph_stays_on_the_cpu() -> None:
    assert operators(graph("cpu")) == [("decoders__ImageSlice", "cpu"), ("Resize", "cpu")]


def test_whole_images_are_decoded_where_that_is_asked_for() -> None:
    assert operators(graph("cpu", resize=False, whole=True)) == [("decoders__Image", "cpu")]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_nothing_is_resized_where_every_window_fits(device: Device) -> None:
    assert "Resize" not in dict(operators(graph(device, resize=False)))


def test_the_graph_holds_no_random_operator() -> None:
    names = {name for device in ("cpu", "gpu") for name, _ in operators(graph(device))}
    assert names == {"decoders__ImageSlice", "Resize", "CropMirrorNormalize"}


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [("cpu", "float16", "float32, uint8"), ("tpu", "float32", "one of cpu, gpu"), ("gpu", "int8", "float16")],
)
def test_what_a_device_cannot_put_out_is_refused(device: Device, dtype: DType, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        graph(device, dtype)


@pytest.mark.parametrize(
    ("interpolation", "expected"), [("bilinear", types.INTERP_LINEAR), ("bicubic", types.INTERP_CUBIC)]
)
def test_the_gpu_resizes_with_the_filter_that_is_asked_for(interpolation: Any, expected: Any) -> None:
    (resize,) = (values for name, values in nodes(graph("gpu", interpolation=interpolation)) if name == "Resize")
    assert resize["interp_type"] == int(expected)
    assert resize["antialias"] == 1
