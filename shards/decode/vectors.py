"""Vectors in LLVM's language, for intrinsics of numba: what compilers do not find by themselves is written out.

`builder` writes the instructions of the function that is being compiled. LLVM turns vectors of any width into whatever
the processor has.
"""

import platform
from collections.abc import Sequence
from typing import Any

import numba.extending
from llvmlite import ir
from numba.core import cgutils

X86 = platform.machine().lower() in ("x86_64", "amd64")
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


def same(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, constant(ir.VectorType(ir.IntType(32), lanes), 0))


def pairs_summed(builder: ir.IRBuilder, left: Any, right: Any) -> Any:
    """The sum of each pair of neighbouring products of vectors of 8 values of 16 bits with sign: 4 values of 32."""
    wide = ir.VectorType(ir.IntType(32), 4)
    if X86:
        # LLVM finds this instruction for one sum alone, and not where several are made side by side.
        kind = ir.FunctionType(wide, [left.type, right.type])
        name = "llvm.x86.sse2.pmadd.wd"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [left, right])  # type: ignore[no-untyped-call]

    def half(vector: Any, first: int) -> Any:
        return builder.sext(shuffled(builder, vector, range(first, vector.type.count, 2)), wide)

    return builder.add(*(builder.mul(half(left, each), half(right, each)) for each in (0, 1)))
