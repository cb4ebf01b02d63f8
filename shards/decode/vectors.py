"""Vectors in LLVM's language, for intrinsics of numba: what compilers do not find by themselves is written out.

`builder` writes the instructions of the function that is being compiled. LLVM turns vectors of any width into whatever
the processor has.
"""

import platform
from collections.abc import Sequence
from typing import Any

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils

X86 = platform.machine().lower() in ("x86_64", "amd64")
# LLVM's names of one instruction, by what a processor must have for it, and the 16-bit values that it takes at a time.
MULTIPLY_AND_ADD = {
    "+avx512bw": ("llvm.x86.avx512.pmaddw.d.512", 32),
    "+avx2": ("llvm.x86.avx2.pmadd.wd", 16),
    "": ("llvm.x86.sse2.pmadd.wd", 8),  # every x86-64 has it
}
# Its own types say that what it makes takes other arguments and never returns.
intrinsic: Any = numba.extending.intrinsic


def data_of(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, position: int) -> Any:
    return context.make_array(signature.args[position])(context, builder, args[position]).data


def size_of(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, position: int) -> Any:
    return context.make_array(signature.args[position])(context, builder, args[position]).nitems


def address(builder: ir.IRBuilder, data: Any, index: Any, kind: ir.VectorType) -> Any:
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def load(builder: ir.IRBuilder, data: Any, index: Any, bits: int, lanes: int) -> Any:
    return builder.load(address(builder, data, index, ir.VectorType(ir.IntType(bits), lanes)), align=bits // 8)


def constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def shuffled(builder: ir.IRBuilder, vector: Any, lanes: Sequence[int], other: Any = None) -> Any:
    """The values of `vector` and, counted on from those, of `other`, at these places."""
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined) if other is None else other, chosen)


def joined(builder: ir.IRBuilder, vectors: Sequence[Any]) -> Any:
    """The values of two or four vectors, one after the other."""
    while len(vectors) > 1:
        vectors = [
            shuffled(builder, one, range(2 * one.type.count), other)
            for one, other in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def interleaved(builder: ir.IRBuilder, one: Any, other: Any, half: int) -> Any:
    """A value of each in turn, of the first (0) or second (1) half of each 16 bytes: one instruction for 32."""
    block = 128 // one.type.element.width
    places = [start + block // 2 * half + i for start in range(0, one.type.count, block) for i in range(block // 2)]
    return shuffled(builder, one, [lane for place in places for lane in (place, one.type.count + place)], other)


def same(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, constant(ir.VectorType(ir.IntType(32), lanes), 0))


def pairs_summed(context: Any, builder: ir.IRBuilder, left: Any, right: Any) -> Any:
    """The sum of each pair of neighbouring products of two vectors of 16-bit values with sign: half as many of 32."""
    if X86:
        # LLVM finds this instruction for one sum alone, and not where several are made side by side.
        return _multiplied_and_added(context, builder, left, right)
    wide = ir.VectorType(ir.IntType(32), left.type.count // 2)

    def half(vector: Any, first: int) -> Any:
        return builder.sext(shuffled(builder, vector, range(first, vector.type.count, 2)), wide)

    return builder.add(*(builder.mul(half(left, each), half(right, each)) for each in (0, 1)))


def _multiplied_and_added(context: Any, builder: ir.IRBuilder, left: Any, right: Any) -> Any:
    """`pairs_summed` by instructions of the processor for which numba compiles, as wide as it has them."""
    features = ["", *context.codegen().magic_tuple()[2].split(",")]  # numba's cache tells processors apart by the same
    name, most = next(MULTIPLY_AND_ADD[feature] for feature in MULTIPLY_AND_ADD if feature in features)
    lanes = left.type.count
    if lanes > most:
        halves = (range(lanes // 2), range(lanes // 2, lanes))
        parts = [[shuffled(builder, each, half) for each in (left, right)] for half in halves]
        return joined(builder, [_multiplied_and_added(context, builder, *part) for part in parts])
    kind = ir.FunctionType(ir.VectorType(ir.IntType(32), lanes // 2), [left.type, right.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [left, right])  # type: ignore[no-untyped-call]


def upper_half(builder: ir.IRBuilder, left: Any, right: Any) -> Any:
    """The upper 16 bits of the 32-bit products of vectors of 16 bits without sign."""
    wide = ir.VectorType(ir.IntType(32), left.type.count)
    product = builder.mul(builder.zext(left, wide), builder.zext(right, wide))
    return builder.trunc(builder.lshr(product, constant(wide, 16)), left.type)


@intrinsic
def copy_bytes(typing: Any, pixels: Any, at: Any, count: Any, out: Any, to: Any) -> Any:
    """Copies `count` bytes, of `pixels` from byte `at` on, to byte `to` of `out`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, target = (data_of(context, builder, signature, args, i) for i in (0, 3))
        cgutils.raw_memcpy(builder, builder.gep(target, [args[4]]), builder.gep(source, [args[1]]), args[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(pixels, types.intp, types.intp, out, types.intp), generate
