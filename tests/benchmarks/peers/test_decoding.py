"""What results say of who decodes: our loader's choice, and plain DALI's pipeline. No GPU is needed."""

from typing import Any

import pytest
from nvidia.dali import backend

from benchmarks.measure.settings import BatchSpec
from benchmarks.peers import dali
from benchmarks.peers.roster import DALI_LOAD, ROSTER
from benchmarks.peers.shardfeed import chosen, peer
from benchmarks.processes.task import PeerTask
from shards.dataset import Split
from shards.decode.graph import GraphConfig
from shards.sampling.crops import Crop


def graph(**options: Any) -> GraphConfig:
    given: dict[str, Any] = {"device": "gpu", "dtype": "float32", "batch_size": 256, "resize": True, "threads": 1}
    given.update(options)
    return GraphConfig(**given)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (graph(device="cpu", decode="cpu"), {"decode": "cpu"}),
        (graph(device="cpu", decode="raw"), {"decode": "raw"}),
        (
            graph(decode="region", fancy_upsampling=False),
            {"decode": "region", "fancy_upsampling": False, "decoded_together": 256},
        ),
        (
            graph(decode="hardware"),
            {"decode": "hardware", "hw_decoder_load": 0.65, "fancy_upsampling": True, "decoded_together": 256},
        ),
        (
            graph(decode="hybrid", hw_decoder_load=0.0),
            {"decode": "hybrid", "hw_decoder_load": 0.0, "fancy_upsampling": True, "decoded_together": 256},
        ),
    ],
)
def test_a_result_says_what_our_loader_decodes_with(config: GraphConfig, said: dict[str, Any]) -> None:
    assert chosen(config) == said


def test_the_share_that_results_name_is_the_one_that_dali_takes() -> None:
    for operator in ("decoders__Image", "decoders__ImageSlice", "decoders__ImageRandomCrop", "decoders__ImageCrop"):
        schema = backend.GetSchema(operator)  # type: ignore[attr-defined]  # not in its stubs
        assert float(schema.GetArgumentDefaultValueString("hw_decoder_load")) == pytest.approx(DALI_LOAD)
        assert schema.GetArgumentDefaultValueString("jpeg_fancy_upsampling") == "False"


def task(split: Split, **options: Any) -> PeerTask:
    return PeerTask(str(split.root), "train", "", "image", "label", "", BatchSpec(8, resize=40, size=32), 1, options)


def test_the_choice_stands_among_the_settings_of_our_loader_and_of_plain_dali(small_split: Split) -> None:
    assert peer(task(small_split)).settings["decode"] == "cpu"
    assert dali.peer(task(small_split)).settings["decode"] == "cpu, the window alone"
    on_gpu = dali.peer(task(small_split, device="gpu")).settings
    assert (on_gpu["decode"], on_gpu["hw_decoder_load"], on_gpu["fancy_upsampling"]) == (
        "mixed, the window alone", DALI_LOAD, False
    )  # fmt: skip


@pytest.mark.parametrize(("crop", "resize"), [("random", 40), ("random", 36), ("rrc", 40)])
def test_plain_dali_decodes_mixed_for_a_gpu_which_does_the_rest(small_split: Split, crop: Crop, resize: int) -> None:
    serialized: dict[bool, bytes] = {}
    for on_gpu in (False, True):
        made = dali.pipeline(small_split, BatchSpec(8, resize=resize, size=32, crop=crop), 1, on_gpu, device_id=None)
        serialized[on_gpu] = made.serialize()
    assert b"mixed" in serialized[True]
    assert b"mixed" not in serialized[False]
    assert serialized[True].count(b"gpu") > serialized[False].count(b"gpu")


def test_batches_that_are_lent_are_measured_beside_those_that_are_copied() -> None:
    copied, lent = ROSTER["gpu"].options, ROSTER["gpu-lent"].options
    assert lent == {**copied, "lends": True}
