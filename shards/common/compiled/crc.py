"""zlib's CRC-32 inside compiled loops.

Samples are read without the interpreter's lock. A checksum from Python takes that lock for each of them, which costs
several times what the sum does (docs/decisions.md).

Blocks of 64 bytes are folded into 16 bytes by multiplication without carries, where the processor has it (Gopal et al.,
"Fast CRC computation for generic polynomials using PCLMULQDQ instruction", Intel, 2009). What is left, and everything
on other processors, is summed by tables, 16 bytes at a time (Kounavis and Berry, "Novel table lookup-based algorithms
for high-performance CRC generation", 2008).
"""

from typing import Any

import numba
import numba.extending
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

UInt8Array = npt.NDArray[np.uint8]

# zlib's polynomial, its bits in reverse, as those of bytes are taken.
POLYNOMIAL = 0xEDB88320
# What the lower and the upper half of 16 bytes are multiplied by, to stand 64 and 16 bytes further on: x to the power
# of the distance in bits, and 32 more or less, modulo the polynomial. From the first paper.
BY_64, BY_16 = (0x154442BD4, 0x1C6E41596), (0x1751997D0, 0x0CCAA009E)
_HALVES = ir.VectorType(ir.IntType(64), 2)
# Its own types say that what it makes takes other arguments and never returns.
_intrinsic: Any = numba.extending.intrinsic
_two_words: Any = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]


def _tables() -> npt.NDArray[np.uint32]:
    """(16, 256): what each byte adds to the sum if i bytes follow it."""
    tables = np.empty((16, 256), np.uint32)
    entry = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        entry = (entry >> np.uint32(1)) ^ (entry & np.uint32(1)) * np.uint32(POLYNOMIAL)
    tables[0] = entry
    for i in range(1, 16):
        tables[i] = (tables[i - 1] >> np.uint32(8)) ^ entry[tables[i - 1] & np.uint32(255)]
    return tables


_TABLES = _tables()


@numba.njit(nogil=True, cache=True)
def crc32(data: UInt8Array, first: int, size: int) -> int:
    """The CRC-32 of `size` bytes of `data` from byte `first` on."""
    at, end, crc = np.uint64(first), np.uint64(first + size), np.uint32(0xFFFFFFFF)
    blocks = np.uint64(size // 64) if _folds() else np.uint64(0)
    if blocks > np.uint64(0):
        low, high = _folded(data, at, blocks, np.uint64(crc))
        crc = _of_two_words(low, high)
        at += np.uint64(64) * blocks
    while at + np.uint64(16) <= end:
        low, high = _loaded(data, at)
        crc = _of_two_words(low ^ np.uint64(crc), high)
        at += np.uint64(16)
    while at < end:
        crc = (crc >> np.uint32(8)) ^ _TABLES[0, (crc ^ np.uint32(data[at])) & np.uint32(255)]
        at += np.uint64(1)
    return np.int64(crc ^ np.uint32(0xFFFFFFFF))  # type: ignore[return-value]


@numba.njit(nogil=True, cache=True)
def _of_two_words(low, high):  # type: ignore[no-untyped-def]
    """The sum of 16 bytes, begun with 0."""
    crc, byte = np.uint32(0), np.uint64(255)
    for i in range(np.uint64(8)):
        crc ^= _TABLES[np.uint64(15) - i, (low >> np.uint64(8) * i) & byte]
        crc ^= _TABLES[np.uint64(7) - i, (high >> np.uint64(8) * i) & byte]
    return crc


@_intrinsic
def _folds(typing: Any) -> Any:
    """Whether the processor multiplies without carries."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return ir.IntType(1)(_multiplies(context))

    return types.boolean(), generate


@_intrinsic
def _folded(typing: Any, data: Any, first: Any, blocks: Any, crc: Any) -> Any:
    """Two words whose sum, begun with 0, is that of `blocks` times 64 bytes, begun with `crc`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes = [cgutils.alloca_once(builder, _HALVES) for _ in range(4)]  # type: ignore[no-untyped-call]
        whole = ir.IntType(64)
        for i, lane in enumerate(lanes):
            builder.store(_load(context, builder, signature, args, builder.add(args[1], whole(16 * i))), lane)
        start = builder.insert_element(ir.Constant(_HALVES, [0, 0]), args[3], ir.IntType(32)(0))
        builder.store(builder.xor(builder.load(lanes[0]), start), lanes[0])
        with cgutils.for_range(builder, builder.sub(args[2], whole(1))) as loop:
            block = builder.add(args[1], builder.mul(builder.add(loop.index, whole(1)), whole(64)))
            for i, lane in enumerate(lanes):
                following = _load(context, builder, signature, args, builder.add(block, whole(16 * i)))
                builder.store(_moved(context, builder, builder.load(lane), BY_64, following), lane)
        result = builder.load(lanes[0])
        for lane in lanes[1:]:
            result = _moved(context, builder, result, BY_16, builder.load(lane))
        return _words(context, builder, signature, result)

    return _two_words(data, types.uint64, types.uint64, types.uint64), generate


@_intrinsic
def _loaded(typing: Any, data: Any, first: Any) -> Any:
    """16 bytes as two words."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return _words(context, builder, signature, _load(context, builder, signature, args, args[1]))

    return _two_words(data, types.uint64), generate


def _multiplies(context: Any) -> bool:
    """Whether numba compiles for a processor that multiplies without carries. Its cache goes by the same features."""
    return "+pclmul" in context.codegen().magic_tuple()[2].split(",")


def _load(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, at: Any) -> Any:
    memory = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.load(builder.bitcast(builder.gep(memory, [at]), _HALVES.as_pointer()), align=1)


def _words(context: Any, builder: ir.IRBuilder, signature: Any, vector: Any) -> Any:
    words = [builder.extract_element(vector, ir.IntType(32)(i)) for i in range(2)]
    return context.make_tuple(builder, signature.return_type, words)


def _moved(context: Any, builder: ir.IRBuilder, vector: Any, factors: tuple[int, int], other: Any) -> Any:
    """The bytes of `vector` as far on as `factors` say, added to `other`."""
    if not _multiplies(context):
        return other  # never called: `_folds` says so
    kind = ir.FunctionType(_HALVES, [_HALVES, _HALVES, ir.IntType(8)])
    multiply = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.pclmulqdq")  # type: ignore[no-untyped-call]
    by = ir.Constant(_HALVES, list(factors))
    lower, upper = (builder.call(multiply, [vector, by, ir.IntType(8)(half)]) for half in (0x00, 0x11))
    return builder.xor(builder.xor(lower, upper), other)
