"""Augmentation policies: what is drawn, and that DALI's graph does it as torchvision would."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.dlpack import from_dlpack
from torchvision.transforms import InterpolationMode, autoaugment

from shards.decode.policy_operators import PolicyGraph, apply
from shards.sampling.policies import (
    AUTO,
    INPUTS,
    OPERATIONS,
    POLICIES,
    RAND_MAGNITUDE,
    SPACES,
    Policy,
    draws,
    operations,
)
from tests.conftest import photo

Pixels = npt.NDArray[np.uint8]

IDS = np.arange(40_000)

# torchvision's names.
NAMES = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
}
BATCH, HEIGHT, WIDTH = 8, 96, 124


@functools.cache
def augmenter(policy: Policy) -> PolicyGraph:
    return PolicyGraph(policy, BATCH, threads=1)


def test_another_graph_of_a_policy_is_a_copy_for_its_own_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([photo(HEIGHT, WIDTH, seed) for seed in range(3)])
    drawn = draws("trivial", np.arange(3), 0, 0)
    expected = augmented("trivial", images, drawn)
    monkeypatch.setattr("shards.decode.policy_operators.apply", lambda *_: pytest.fail("the graph is made again"))
    assert np.array_equal(from_dlpack(PolicyGraph("trivial", 3, threads=2)(images, drawn)).numpy(), expected)


def augmented(policy: Policy, images: Pixels, drawn: dict[str, npt.NDArray[np.int32]]) -> Pixels:
    return from_dlpack(augmenter(policy)(images, drawn)).numpy().copy()


def photos(count: int = BATCH) -> Pixels:
    """Different ones, whose levels are not all in use."""
    return np.stack([photo(HEIGHT, WIDTH, seed) // 2 + 40 for seed in range(count)])


def one(policy: Policy, name: str, steps: list[int], signs: list[int]) -> dict[str, npt.NDArray[np.int32]]:
    """Draws that do `name` once to each image."""
    drawn = {key: np.zeros((len(steps), SPACES[policy].stages), np.int32) for key in INPUTS}
    drawn["operation"][:, 0] = operations(policy).index(name)
    drawn["magnitude"][:, 0] = steps
    drawn["sign"][:, 0] = signs
    return drawn


def torchvisions(policy: Policy) -> Any:
    """torchvision's table: magnitudes of each operation for images of this size, and whether they are signed."""
    if policy == "trivial":
        return autoaugment.TrivialAugmentWide()._augmentation_space(31)
    if policy == "rand":
        return autoaugment.RandAugment()._augmentation_space(31, (HEIGHT, WIDTH))
    return autoaugment.AutoAugment()._augmentation_space(10, (HEIGHT, WIDTH))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_ranges_are_torchvisions(policy: Policy) -> None:
    table, space = torchvisions(policy), SPACES[policy]
    assert {NAMES[name] for name in operations(policy)} - {"Identity"} == set(table) - {"Identity"}
    for name in operations(policy)[1:]:
        magnitudes, signed = table[NAMES[name]]
        assert signed == (name in space.signed)
        assert (magnitudes.ndim == 1) == (name in space.ranges)
        if name in space.ranges:
            first, last = space.ranges[name]
            mine = np.linspace(first, last, space.steps)
            if name == "posterize":
                mine = np.rint(mine)
            if not space.pixels:
                mine = mine * {"translate_x": WIDTH, "translate_y": HEIGHT}.get(name, 1)
            assert np.allclose(mine, magnitudes.numpy(), atol=1e-4)


def test_the_defaults_and_pairs_are_torchvisions() -> None:
    rand, auto = autoaugment.RandAugment(), autoaugment.AutoAugment()
    assert (rand.num_ops, rand.magnitude, rand.num_magnitude_bins) == (2, RAND_MAGNITUDE, SPACES["rand"].steps)
    assert autoaugment.TrivialAugmentWide().num_magnitude_bins == SPACES["trivial"].steps
    mine = [tuple((NAMES[name], share, step) for name, share, step in pair) for pair in AUTO]
    assert mine == [tuple((name, share, step or 0) for name, share, step in pair) for pair in auto.policies]


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_operations_magnitudes_and_signs_are_drawn_evenly(policy: Policy) -> None:
    drawn = draws(policy, IDS, seed=0, epoch=0)
    for stage in range(SPACES[policy].stages):
        counts = np.bincount(drawn["operation"][:, stage], minlength=14)
        assert len(counts) == 14
        assert np.abs(counts / len(IDS) - 1 / 14).max() < 0.006
        assert abs(drawn["sign"][:, stage].mean() - 0.5) < 0.01
    if policy == "trivial":
        counts = np.bincount(drawn["magnitude"][:, 0], minlength=31)
        assert len(counts) == 31
        assert np.abs(counts / len(IDS) - 1 / 31).max() < 0.005
        assert abs(np.corrcoef(drawn["magnitude"][:, 0], drawn["operation"][:, 0])[0, 1]) < 0.02
    else:
        assert (drawn["magnitude"] == RAND_MAGNITUDE).all()
        assert abs(np.corrcoef(drawn["operation"][:, 0], drawn["operation"][:, 1])[0, 1]) < 0.02


def test_auto_runs_its_operations_with_their_probabilities() -> None:
    drawn = draws("auto", IDS, seed=0, epoch=0)
    for stage in range(2):
        share = np.zeros(len(OPERATIONS))
        for pair in AUTO:
            share[OPERATIONS.index(pair[stage][0])] += pair[stage][1] / len(AUTO)
        share[0] = 1 - share.sum()
        counts = np.bincount(drawn["operation"][:, stage], minlength=len(OPERATIONS))
        assert np.abs(counts / len(IDS) - share).max() < 0.01
    # Whether one runs says nothing of the other: the pair of solarize and auto_contrast is in the table twice.
    both = (drawn["operation"][:, 0] == OPERATIONS.index("solarize")) & (
        drawn["operation"][:, 1] == OPERATIONS.index("auto_contrast")
    )
    assert abs(both.mean() - 2 / 25 * 0.36) < 0.005


@given(
    policy=st.sampled_from(POLICIES),
    ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
)
def test_a_sample_draws_the_same_wherever_it_stands(policy: Policy, ids: list[int], seed: int, epoch: int) -> None:
    drawn = draws(policy, np.array(ids), seed, epoch)
    alone = draws(policy, np.array(ids[-1:]), seed, epoch)
    for name in INPUTS:
        assert drawn[name].shape == (len(ids), SPACES[policy].stages)
        assert drawn[name].dtype == np.int32
        assert np.array_equal(drawn[name][-1:], alone[name])


@pytest.mark.parametrize("policy", POLICIES)
def test_another_epoch_and_another_seed_draw_otherwise(policy: Policy) -> None:
    first = draws(policy, IDS, 0, 0)["operation"]
    for seed, epoch in ((0, 1), (1, 0)):
        assert (draws(policy, IDS, seed, epoch)["operation"] != first).mean() > 0.3


# Mean difference in levels that DALI may have to torchvision, where they are not the same: DALI rounds where
# torchvision cuts off, its equalize is OpenCV's and not Pillow's, and its sharpness reaches to the border.
TOLERANCE = {"equalize": 4.0, "sharpness": 1.6, "rotate": 0.8, "brightness": 1.0, "color": 1.3, "contrast": 1.1}
TOLERANCE |= {"shear_x": 0.8, "shear_y": 0.8, "auto_contrast": 1.0}


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(name: str, sign: int) -> None:
    policy: Policy = "auto" if name == "invert" else "trivial"
    space, images = SPACES[policy], photos(2)
    # torchvision moves by whole pixels, and DALI by fractions too: the last step of a translation is 32 pixels.
    steps = [space.steps - 1 if name.startswith("translate") else space.steps // 2, space.steps - 1]
    found = augmented(policy, images, one(policy, name, steps, [sign, sign]))
    table = torchvisions(policy)
    magnitudes, signed = table.get(NAMES[name], (torch.tensor(0.0), False))
    for i in range(2):
        magnitude = float(magnitudes[steps[i]]) if magnitudes.ndim else 0.0
        # Which way is positive does not matter where both are as likely; DALI's shear goes the other way.
        flipped = bool(sign) != name.startswith("shear")
        expected = autoaugment._apply_op(
            torch.from_numpy(images[i]).permute(2, 0, 1),
            NAMES[name],
            -magnitude if signed and flipped else magnitude,
            InterpolationMode.BILINEAR,
            [0.0, 0.0, 0.0],
        )
        difference = np.abs(found[i].astype(int) - expected.permute(1, 2, 0).numpy())
        assert difference.mean() <= TOLERANCE.get(name, 0.0)
        if name != "identity":
            assert (found[i] != images[i]).mean() > 0.01


@pytest.mark.parametrize("policy", ["rand", "auto"])
def test_a_translation_is_a_share_of_the_side(policy: Policy) -> None:
    space = SPACES[policy]
    white = np.full((2, HEIGHT, WIDTH, 3), 255, np.uint8)
    for name, side in (("translate_x", WIDTH), ("translate_y", HEIGHT)):
        moved = augmented(policy, white, one(policy, name, [space.steps - 1] * 2, [0, 1]))
        assert abs((moved == 0).mean() - 150 / 331) < 1.5 / side
        assert not (moved[0] == moved[1]).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_sample_comes_out_the_same_in_any_batch(policy: Policy) -> None:
    images = photos()
    for epoch in range(4):
        drawn = draws(policy, np.arange(BATCH), 5, epoch)
        whole = augmented(policy, images, drawn)
        assert np.array_equal(augmented(policy, images, drawn), whole)
        other = np.array([6, 1, 3])
        part = augmented(policy, images[other], {name: drawn[name][other] for name in INPUTS})
        assert np.array_equal(part, whole[other])


def test_two_stages_are_one_after_the_other() -> None:
    images = photos(2)
    drawn = {name: np.zeros((2, 2), np.int32) for name in INPUTS}
    drawn["operation"][:] = OPERATIONS.index("rotate"), OPERATIONS.index("posterize")
    drawn["magnitude"][:] = RAND_MAGNITUDE
    first, second = (one("rand", name, [RAND_MAGNITUDE] * 2, [0, 0]) for name in ("rotate", "posterize"))
    expected = augmented("rand", augmented("rand", images, first), second)
    assert np.array_equal(augmented("rand", images, drawn), expected)


def test_the_input_stays_as_it_is_and_the_output_is_no_view_of_it() -> None:
    images = photos()
    before = images.copy()
    output = from_dlpack(augmenter("trivial")(images, one("trivial", "identity", [0] * BATCH, [0] * BATCH)))
    assert np.array_equal(images, before)
    output.zero_()
    assert np.array_equal(images, before)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_graph_for_a_gpu_can_be_made(policy: Policy) -> None:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    @pipeline_def(enable_conditionals=True)
    def graph() -> object:
        outputs = fn.external_source(name="images", dtype=types.UINT8, ndim=3, layout="HWC")
        fed = {name: fn.external_source(name=name, dtype=types.INT32, ndim=1) for name in INPUTS}
        return apply(policy, outputs.gpu(), fed)

    serialized = graph(batch_size=4, num_threads=1, device_id=None).serialize()
    assert b"WarpAffine" in serialized
    assert b"random__" not in serialized
