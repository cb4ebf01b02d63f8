"""Vectors as instructions: the same sums on processors of every width, and where LLVM has no instruction by name."""

import ast
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import types

from shards.decode import vectors

VALUES = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 32), np.int16)
VALUES[:, :4] = -(2**15) + 1  # gives the largest sum there is
SUMS = (VALUES[0].astype(int) * VALUES[1]).reshape(16, 2).sum(axis=1)


def sums() -> list[int]:
    """The sums of `VALUES`, compiled now."""

    @vectors.intrinsic
    def both(typing, left, right, out):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            data = [vectors.data_of(context, builder, signature, args, i) for i in range(3)]
            zero = ir.IntType(64)(0)
            found = vectors.pairs_summed(
                context, builder, *(vectors.load(builder, each, zero, 16, 32) for each in data[:2])
            )
            builder.store(found, vectors.address(builder, data[2], zero, found.type), align=4)
            return context.get_dummy_value()

        return types.void(left, right, out), generate

    @numba.njit
    def run(left, right, out):  # type: ignore[no-untyped-def]
        both(left, right, out)

    out = np.zeros(16, np.int32)
    run(VALUES[0], VALUES[1], out)
    return out.tolist()


def test_pairs_are_summed_exactly() -> None:
    assert sums() == SUMS.tolist()


def test_pairs_are_summed_without_the_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "X86", False)
    assert sums() == SUMS.tolist()


@pytest.mark.skipif(not vectors.X86, reason="names of processors of another kind")
@pytest.mark.parametrize(("processor", "features"), [("x86-64", ""), ("haswell", "+avx,+avx2")])
def test_pairs_are_summed_by_narrower_instructions(processor: str, features: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import sums; print(sums())"],
        env={**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ast.literal_eval(found.stdout) == SUMS.tolist()
