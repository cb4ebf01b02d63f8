import struct
from collections.abc import Iterator
from typing import Any

import pytest

from shards.common.errors import UsageError
from shards.decode.graph import Decode, Device, DType, GraphConfig, build


def graph(
    device: Device, dtype: DType = "float32", *, resize: bool = True, decode: Decode | None = None, **options: Any
) -> GraphConfig:
    chosen: Decode = decode or ("cpu" if device == "cpu" else "region")
    return GraphConfig(device=device, decode=chosen, dtype=dtype, batch_size=4, resize=resize, threads=2, **options)


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message: (number, content)."""
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
        if tag & 7 == 0:
            varint()
        elif tag & 7 == 2:
            size = varint()
            yield tag >> 3, message[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}[tag & 7]


def operators(wanted: GraphConfig) -> list[tuple[str, str]]:
    """(name, device) of each operator in the serialised graph, sources left out, in order."""
    found = []
    for _, operator in fields(build(wanted).serialize()):
        parts = list(fields(operator)) if operator[:1] == b"\n" else []
        if not parts or parts[0][1] == b"ExternalSource":
            continue
        devices = [list(fields(content)) for _, content in parts if b"device" in content and b"string" in content]
        values = [argument[-1][1].decode() for argument in devices if argument and argument[0][1] == b"device"]
        if values:
            found.append((parts[0][1].decode(), values[0]))
    return found


def test_the_gpu_graph_decodes_mixed_and_finishes_on_the_gpu() -> None:
    assert operators(graph("gpu", "float16")) == [
        ("decoders__ImageSlice", "mixed"),
        ("Resize", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]


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


def test_stored_pixels_are_not_decoded() -> None:
    names = [name for name, _ in operators(graph("gpu", "float16", decode="raw", resize=False))]
    assert [name for name in names if "Decode" in name or "decoders" in name] == []
    assert names[-2:] == ["Slice", "CropMirrorNormalize"]


def test_the_share_of_the_engines_reaches_the_decoder() -> None:
    plain = build(graph("gpu", decode="hardware")).serialize()
    loaded = build(graph("gpu", decode="hardware", hw_decoder_load=0.875)).serialize()
    share = struct.pack("<f", 0.875)
    assert share in loaded
    assert share not in plain


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cpu", {"decode": "region"}, "needs device='gpu'"),
        ("cpu", {"decode": "hardware"}, "needs device='gpu'"),
        ("gpu", {"decode": "region", "fast_idct": True}, "fast_idct is for"),
        ("gpu", {"decode": "region", "hw_decoder_load": 0.5}, "for decode='hardware'"),
        ("gpu", {"decode": "hardware", "hw_decoder_load": 1.5}, "from 0 to 1"),
    ],
)
def test_options_that_would_do_nothing_are_refused(device: Device, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        graph(device, **options)


def test_the_cpu_graph_stays_on_the_cpu() -> None:
    assert operators(graph("cpu")) == [("decoders__ImageSlice", "cpu"), ("Resize", "cpu")]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_nothing_is_resized_where_every_window_fits(device: Device) -> None:
    assert "Resize" not in dict(operators(graph(device, resize=False)))


def test_the_graph_holds_no_random_operator() -> None:
    names = {name for device in ("cpu", "gpu") for name, _ in operators(graph(device))}
    assert names == {"decoders__ImageSlice", "Resize", "CropMirrorNormalize"}


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [("cpu", "float16", "float32, uint8"), ("tpu", "float32", "cpu or gpu"), ("gpu", "int8", "float16")],
)
def test_what_a_device_cannot_put_out_is_refused(device: Device, dtype: DType, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        graph(device, dtype)
