"""Augmentation policies on a GPU."""

import numpy as np
import pytest
from torch.utils.dlpack import from_dlpack

from shards.decode.policy_operators import PolicyGraph, apply
from shards.sampling.policies import INPUTS, POLICIES, Policy, draws
from tests.conftest import photo

pytestmark = pytest.mark.gpu

BATCH = 8


@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_does_what_a_cpu_does(policy: Policy) -> None:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    images = np.stack([photo(96, 124, seed) // 2 + 40 for seed in range(BATCH)])
    drawn = draws(policy, np.arange(BATCH), 5, 0)
    expected = from_dlpack(PolicyGraph(policy, BATCH, threads=1)(images, drawn)).numpy()

    @pipeline_def(enable_conditionals=True)
    def graph() -> object:
        pixels = fn.external_source(name="images", dtype=types.UINT8, ndim=3, layout="HWC")
        fed = {name: fn.external_source(name=name, dtype=types.INT32, ndim=1) for name in INPUTS}
        return apply(policy, pixels.gpu(), fed)

    made = graph(batch_size=BATCH, num_threads=1, device_id=0, prefetch_queue_depth=1)
    (output,) = made.run(images=images, **drawn)
    found = output.as_cpu().as_array()
    difference = np.abs(found.astype(int) - expected).mean(axis=(1, 2, 3))
    assert difference.max() < 1.0
