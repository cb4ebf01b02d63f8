"""The two sums of an antialiased bicubic resize, as torchvision has them on tensors of 8 bits, to the bit.

That holds for a window of a reduced image too. A window of an enlarged one may lack the largest weight of the whole
image, by which the bits of a weight are chosen: then a few values are a level away.

The filter is Keys' cubic with a = -0.5 over the window, twice as wide as the triangle of `resample.py` (Keys, "Cubic
convolution interpolation for digital image processing", 1981), as Pillow and torchvision's antialias=True have it. Its
weights may be negative, so sums leave the range of a pixel and are cut off: those over columns, which come first, and
then those over rows. Pillow does the same where that order is the cheaper one, as its version 13 chooses.

Weights are whole numbers of 16 bits and sums are exact, so the pixels are the same on every processor.
"""

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from shards.decode.vectors import address, constant, data_of, intrinsic, load, pairs_summed, same, shuffled, size_of

# The most bits of fraction that a weight has; and the bits of a weight, one of which is its sign.
MOST_BITS, WORD = 22, 16
# Values of a row summed at a time.
LANES = 64
# Values of two neighbouring stored pixels, channel by channel, and two zeros to spare: what one instruction weights.
PAIR = 8
# Stored pixels that are paired together, each with the next one, and where their values come from. 16 is a zero.
PAIRED = 4
NEIGHBOURS = [lane for x in range(PAIRED) for lane in (*(3 * x + value for value in (0, 3, 1, 4, 2, 5)), 16, 16)]
# Output pixels that are made together, and bytes that are written beyond them.
TOGETHER, SPILL = 4, 4


@numba.njit(nogil=True, cache=True)
def cubic_weights(start, end, limit, count):  # type: ignore[no-untyped-def]
    """What each of `count` outputs is made of: the first source pixel (count,), weights int16 (count, taps), and bits.

    A weight of 1 is 2**bits: as many bits as the largest weight leaves room for, and `MOST_BITS` at most. Near the ends
    of the source, the part of the filter that lies inside it is what counts.
    """
    scale = (end - start) / count
    wider = max(scale, 1.0)
    taps = min(limit, int(np.ceil(4.0 * wider)))
    centre, first = np.empty(count, np.float64), np.empty(count, np.int64)
    for i in range(count):
        centre[i] = start + (i + 0.5) * scale
        first[i] = min(max(0, int(centre[i] - 2.0 * wider + 0.5)), limit - taps)
    # Output after output for each tap, so that the compiler finds vector instructions.
    exact, total, largest = np.empty((taps, count), np.float64), np.zeros(count, np.float64), 0.0
    for tap in range(taps):
        _add_taps(first, centre, tap + 0.5, 1.0 / wider, exact[tap], total)
    for tap in range(taps):
        largest = max(largest, _divide(exact[tap], total))
    bits = 0
    while bits < MOST_BITS and int(0.5 + largest * (2 << bits)) < 1 << (WORD - 1):
        bits += 1
    whole, one = np.empty((count, taps), np.int16), np.float64(1 << bits)
    for tap in range(taps):
        for i in range(count):
            weight = exact[tap, i]
            whole[i, tap] = np.int32(weight * one + (0.5 if weight > 0 else -0.5))
    return first, whole, bits


@numba.njit(nogil=True, cache=True)
def _add_taps(first, centre, offset, inverse, out, total):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = _cubic(abs(np.float64(first[i]) + offset - centre[i]) * inverse)
        total[i] += out[i]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _divide(values, total):  # type: ignore[no-untyped-def]
    largest = 0.0
    for i in range(values.size):
        values[i] /= total[i]
        largest = values[i] if values[i] > largest else largest
    return largest


@numba.njit(nogil=True, cache=True)
def _cubic(x):  # type: ignore[no-untyped-def]
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return near if x < 1.0 else (far if x < 2.0 else 0.0)


@numba.njit(nogil=True, cache=True)
def sum_columns(region, first, last, left, weights, bits):  # type: ignore[no-untyped-def]
    """The rows [first, last) of `region` (height, width, 3), resized to other columns: uint8 (rows, 3 * columns).

    `left` (columns,), `weights` (columns, taps), `bits`: as `cubic_weights` gives them.
    """
    width, columns, taps = region.shape[1], weights.shape[0], weights.shape[1]
    rows, pairs = last - first, (taps + 1) // 2
    padded = (columns + TOGETHER - 1) // TOGETHER * TOGETHER
    at = np.zeros(padded, np.int64)
    flat = np.zeros(padded * pairs * PAIR, np.int16)
    for x in range(columns):
        at[x] = PAIR * left[x]
        for tap in range(taps):
            place = (x * pairs + tap // 2) * PAIR + tap % 2
            for channel in range(3):
                flat[place + 2 * channel] = weights[x, tap]
    # Room for what is read and written beyond the end of a row; of the result, the next row puts that right.
    line = np.zeros(3 * width + 16, np.uint8)
    paired = np.zeros(PAIR * (width + PAIRED + 1), np.int16)
    out = np.empty(3 * columns * rows + 3 * TOGETHER + SPILL, np.uint8)
    for row in range(rows):
        _copy_row(region, (first + row) * region.strides[0], 3 * width, line)
        for x in range(0, width, PAIRED):
            _pair(line, 3 * x, paired, PAIR * x)
        to = 3 * columns * row
        # Two to four pairs, which is any scale up to 2, get code without a loop.
        if pairs == 2:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_2(paired, at, x, flat, pairs, bits, out, to + 3 * x)
        elif pairs == 3:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_3(paired, at, x, flat, pairs, bits, out, to + 3 * x)
        elif pairs == 4:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_4(paired, at, x, flat, pairs, bits, out, to + 3 * x)
        else:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_n(paired, at, x, flat, pairs, bits, out, to + 3 * x)
    return out[: 3 * columns * rows].reshape(rows, 3 * columns)


@numba.njit(nogil=True, cache=True)
def sum_rows(rows, first, weights, bits, out):  # type: ignore[no-untyped-def]
    """Weighted sum of `rows` (height, values) uint8 from row `first` on, rounded and cut off: `out` (values,)."""
    values = rows.shape[1]
    if values < LANES:
        for x in range(values):
            total = 1 << (bits - 1)
            for tap in range(weights.size):
                total += int(rows[first + tap, x]) * int(weights[tap])
            out[x] = min(max(total >> bits, 0), 255)
        return
    start, last = first * values, values - LANES
    for x in range(0, last, LANES):
        _sum_lanes(rows, start + x, values, weights, bits, out, x)
    # The last values, some of them a second time.
    _sum_lanes(rows, start + last, values, weights, bits, out, last)


@intrinsic
def _sum_lanes(typing, pixels, at, stride, weights, bits, out, to):  # type: ignore[no-untyped-def]
    """out[to : to + 64] = the sum over taps of pixels[at + tap * stride :][:64] * weights[tap], as levels."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 3, 5))
        kind = ir.VectorType(ir.IntType(32), LANES)
        total = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
        builder.store(constant(kind, 0), total)
        with cgutils.for_range(builder, size_of(context, builder, signature, args, 3)) as tap:
            place = builder.add(args[1], builder.mul(tap.index, args[2]))
            values = builder.zext(load(builder, source, place, 8, LANES), kind)
            weight = builder.sext(same(builder, builder.load(builder.gep(factors, [tap.index])), LANES), kind)
            builder.store(builder.add(builder.load(total), builder.mul(values, weight)), total)
        levels = _levels(builder, builder.load(total), args[4])
        builder.store(levels, address(builder, target, args[6], levels.type), align=1)
        return context.get_dummy_value()

    return types.void(pixels, types.intp, types.intp, weights, types.intp, out, types.intp), generate


@intrinsic
def _pair(typing: Any, line: Any, at: Any, out: Any, to: Any) -> Any:
    """Four stored pixels from byte `at` on, each with the next one: red, red, green, green, blue, blue, 0, 0."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, target = (data_of(context, builder, signature, args, i) for i in (0, 2))
        pixels = load(builder, source, args[1], 8, 16)
        values = shuffled(builder, pixels, NEIGHBOURS, constant(pixels.type, 0))
        wide = builder.zext(values, ir.VectorType(ir.IntType(16), len(NEIGHBOURS)))
        builder.store(wide, address(builder, target, args[3], wide.type), align=2)
        return context.get_dummy_value()

    return types.void(line, types.intp, out, types.intp), generate


def _sum_pairs(fixed: int) -> Any:
    """The sums for four output pixels: `fixed` pairs of taps or, for 0, as many as come as an argument."""

    @intrinsic
    def sum_pairs(
        typing: Any, paired: Any, at: Any, x: Any, weights: Any, pairs: Any, bits: Any, out: Any, to: Any
    ) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            source, places, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 1, 3, 6))
            kind, word = ir.VectorType(ir.IntType(32), PAIR // 2), ir.IntType(64)

            def sums(pixel: int) -> Any:
                """Of red, green and blue, and one to spare."""
                number = builder.add(args[2], word(pixel))
                begin = builder.load(builder.gep(places, [number]))
                weight = builder.mul(builder.mul(number, args[4]), word(PAIR))

                def product(pair: Any) -> Any:
                    place = builder.add(begin, builder.mul(pair, word(2 * PAIR)))
                    factor = builder.add(weight, builder.mul(pair, word(PAIR)))
                    return pairs_summed(
                        builder, load(builder, source, place, 16, PAIR), load(builder, factors, factor, 16, PAIR)
                    )

                if fixed:
                    return functools.reduce(builder.add, [product(word(pair)) for pair in range(fixed)])
                total = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
                builder.store(constant(kind, 0), total)
                with cgutils.for_range(builder, args[4]) as pair:
                    builder.store(builder.add(builder.load(total), product(pair.index)), total)
                return builder.load(total)

            four = [sums(pixel) for pixel in range(TOGETHER)]
            halves = [shuffled(builder, one, range(8), other) for one, other in (four[:2], four[2:])]
            levels = _levels(builder, shuffled(builder, halves[0], range(16), halves[1]), args[5])
            pixels = shuffled(
                builder, levels, [4 * pixel + channel for pixel in range(4) for channel in range(3)] + [3] * SPILL
            )
            builder.store(pixels, address(builder, target, args[7], pixels.type), align=1)
            return context.get_dummy_value()

        index = types.intp
        return types.void(paired, at, index, weights, index, index, out, index), generate

    return sum_pairs


_sum_pairs_2, _sum_pairs_3, _sum_pairs_4, _sum_pairs_n = (_sum_pairs(fixed) for fixed in (2, 3, 4, 0))


@intrinsic
def _copy_row(typing: Any, pixels: Any, at: Any, count: Any, line: Any) -> Any:
    """line[:count] = the bytes of `pixels` from byte `at` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, target = (data_of(context, builder, signature, args, i) for i in (0, 3))
        cgutils.raw_memcpy(builder, target, builder.gep(source, [args[1]]), args[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(pixels, types.intp, types.intp, line), generate


def _levels(builder: ir.IRBuilder, sums: Any, bits: Any) -> Any:
    """Sums with so many bits of fraction as levels: rounded, and cut off at 0 and 255."""
    shift = same(builder, builder.trunc(bits, sums.type.element), sums.type.count)
    one, lowest, highest = (constant(sums.type, value) for value in (1, 0, 255))
    rounded = builder.ashr(builder.add(sums, builder.shl(one, builder.sub(shift, one))), shift)
    rounded = builder.select(builder.icmp_signed("<", rounded, lowest), lowest, rounded)
    rounded = builder.select(builder.icmp_signed(">", rounded, highest), highest, rounded)
    return builder.trunc(rounded, ir.VectorType(ir.IntType(8), sums.type.count))
