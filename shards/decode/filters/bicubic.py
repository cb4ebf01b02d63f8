"""The two sums of an antialiased bicubic resize, as torchvision has them on tensors of 8 bits, to the bit.

That holds for a window of a reduced image too. A window of an enlarged one may lack the largest weight of the whole
image, by which the bits of a weight are chosen: then a few values are a level away.

The filter is Keys' cubic with a = -0.5 over the window, twice as wide as the triangle of `bilinear.py` (Keys, "Cubic
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

from shards.decode.vectors import (
    address,
    constant,
    copy_bytes,
    data_of,
    interleaved,
    intrinsic,
    joined,
    load,
    pairs_summed,
    same,
    shuffled,
)

# The most bits of fraction that a weight has; and the bits of a weight, one of which is its sign.
MOST_BITS, WORD = 22, 16
# Values of a row summed at a time.
LANES = 64
# Rows whose columns are summed together.
ROWS = 4
# Values of two neighbouring stored pixels, channel by channel, and two zeros to spare; and those of all these rows.
PAIR = 8
PAIRS = ROWS * PAIR
# Stored pixels that are paired together, each with the next one; and bytes of a row that are read for that.
PAIRED, READ = 4, 16
# Output pixels that are made together, and bytes that are written beyond them.
TOGETHER, SPILL = 4, 4


@numba.njit(nogil=True, cache=True)
def cubic_weights(start, end, limit, count, mirror):  # type: ignore[no-untyped-def]
    """What each of `count` outputs is made of: the first source pixel, weights, and the bits of their fraction.

    `first` int64 (count,), `weights` int16 (count, taps); both go on with zeros to a multiple of `TOGETHER` outputs,
    and of two taps. A weight of 1 is 2**bits: as many bits as the largest weight leaves room for, and `MOST_BITS` at
    most. Near the ends of the source, the part of the filter that lies inside it is what counts. `mirror`: 1 for the
    outputs in reverse order.
    """
    scale = (end - start) / count
    wider = max(scale, 1.0)
    taps = min(limit, int(np.ceil(4.0 * wider)))
    padded = (count + TOGETHER - 1) // TOGETHER * TOGETHER
    centre, first = np.empty(count, np.float64), np.zeros(padded, np.int64)
    for i in range(count):
        centre[i] = start + ((count - 1 - i if mirror else i) + 0.5) * scale
        first[i] = min(max(0, int(centre[i] - 2.0 * wider + 0.5)), limit - taps)
    # Output after output for each tap, so that the compiler finds vector instructions.
    exact, total, most = np.empty((taps, count), np.float64), np.zeros(count, np.float64), np.zeros(count, np.float64)
    for tap in range(taps):
        _add_taps(first, centre, tap + 0.5, 1.0 / wider, exact[tap], total)
    for tap in range(taps):
        _divide(exact[tap], total, most)
    largest, bits = most.max(), 0
    while bits < MOST_BITS and int(0.5 + largest * (2 << bits)) < 1 << (WORD - 1):
        bits += 1
    weights, whole = np.zeros((padded, (taps + 1) // 2 * 2), np.int16), np.empty(count, np.int16)
    for tap in range(taps):
        _round(exact[tap], np.float64(1 << bits), whole)
        for i in range(count):
            weights[i, tap] = whole[i]
    return first, weights, bits


@numba.njit(nogil=True, cache=True)
def _add_taps(first, centre, offset, inverse, out, total):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = _cubic(abs(np.float64(first[i]) + offset - centre[i]) * inverse)
        total[i] += out[i]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _divide(values, total, most):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        values[i] /= total[i]
        most[i] = values[i] if values[i] > most[i] else most[i]


@numba.njit(nogil=True, cache=True)
def _round(values, one, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = np.int32(values[i] * one + (0.5 if values[i] > 0 else -0.5))


@numba.njit(nogil=True, cache=True)
def _cubic(x):  # type: ignore[no-untyped-def]
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return near if x < 1.0 else (far if x < 2.0 else 0.0)


@numba.njit(nogil=True, cache=True)
def sum_columns(region, first, last, left, weights, bits):  # type: ignore[no-untyped-def]
    """The rows [first, last) of `region` (height, width, 3), resized to other columns: uint8 (rows, 3 * columns).

    `left`, `weights`, `bits`: as `cubic_weights` gives them. Behind those rows, and behind the values of each, there is
    more, of no meaning.
    """
    height, width, _ = region.shape
    rows, padded, pairs = last - first, left.size, weights.shape[1] // 2
    at, flat = PAIRS * left, weights.reshape(weights.size)
    lines = np.empty((ROWS, 3 * width + READ), np.uint8)
    paired = np.empty(PAIRS * (width + PAIRED + 1), np.int16)
    paired = paired[-(paired.ctypes.data // 2) % PAIRS :]  # what lies in two lines of the cache is read twice
    # The sum of an odd number of rows reads one more, and weights it by 0.
    out = np.empty((rows // ROWS * ROWS + ROWS, 3 * padded + SPILL), np.uint8)
    for row in range(0, rows, ROWS):
        begin = (first + row) * region.strides[0]
        if first + row + ROWS < height and 3 * width >= READ:
            for x in range(0, width, PAIRED):
                _pair(region, begin + 3 * x, region.strides[0], paired, PAIRS * x)
        else:
            # What is read beyond the end of a row must not lie beyond that of the region.
            for each in range(min(ROWS, rows - row)):
                copy_bytes(region, begin + each * region.strides[0], 3 * width, lines, each * lines.shape[1])
            for x in range(0, width, PAIRED):
                _pair(lines, 3 * x, lines.shape[1], paired, PAIRS * x)
        to = row * out.shape[1]
        # Two to four pairs, which is any scale up to 2, get code without a loop.
        if pairs == 2:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_2(paired, at, x, flat, pairs, bits, out, to + 3 * x, out.shape[1])
        elif pairs == 3:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_3(paired, at, x, flat, pairs, bits, out, to + 3 * x, out.shape[1])
        elif pairs == 4:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_4(paired, at, x, flat, pairs, bits, out, to + 3 * x, out.shape[1])
        else:
            for x in range(0, padded, TOGETHER):
                _sum_pairs_n(paired, at, x, flat, pairs, bits, out, to + 3 * x, out.shape[1])
    return out


@numba.njit(nogil=True, cache=True)
def sum_rows(rows, first, weights, y, bits, out, to, values):  # type: ignore[no-untyped-def]
    """A row of the result: `values` levels from place `to` of `out` on, summed from row `first` of `rows` on.

    `weights` (count, taps): of them row y counts. Arrays come whole, because numba counts the references to parts.
    """
    stride, taps = rows.shape[1], weights.shape[1]
    if values < LANES:
        for x in range(values):
            total = 1 << (bits - 1)
            for tap in range(taps):
                total += int(rows[first + tap, x]) * int(weights[y, tap])
            out[to + x] = min(max(total >> bits, 0), 255)
        return
    start, last = first * stride, values - LANES
    for x in range(0, last, LANES):
        _sum_lanes(rows, start + x, stride, weights, y * taps, taps // 2, bits, out, to + x)
    # The last values, some of them a second time.
    _sum_lanes(rows, start + last, stride, weights, y * taps, taps // 2, bits, out, to + last)


@intrinsic
def _sum_lanes(typing, pixels, at, stride, weights, weight, pairs, bits, out, to):  # type: ignore[no-untyped-def]
    """out[to : to + 64] = the sum over taps of pixels[at + tap * stride :][:64] * weights[weight + tap], as levels."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 3, 7))
        word, quarter = ir.IntType(64), ir.VectorType(ir.IntType(32), LANES // 4)
        totals = [cgutils.alloca_once(builder, quarter) for _ in range(4)]  # type: ignore[no-untyped-call]
        for total in totals:
            builder.store(constant(quarter, 0), total)
        with cgutils.for_range(builder, args[5]) as pair:
            tap = builder.mul(pair.index, word(2))
            place = builder.add(args[1], builder.mul(tap, args[2]))
            upper = load(builder, source, place, 8, LANES)
            lower = load(builder, source, builder.add(place, args[2]), 8, LANES)
            two = _two_weights(builder, factors, builder.add(args[4], tap), LANES // 2)
            zeros = constant(upper.type, 0)
            halves = [interleaved(builder, upper, lower, half) for half in (0, 1)]
            quarters = [interleaved(builder, each, zeros, half) for each in halves for half in (0, 1)]
            for total, values in zip(totals, quarters, strict=True):
                product = pairs_summed(context, builder, builder.bitcast(values, two.type), two)
                builder.store(builder.add(builder.load(total), product), total)
        levels = joined(builder, [_levels(builder, builder.load(total), args[6]) for total in totals])
        # Four neighbours of each 16 came into each of the four sums.
        lanes = [16 * part + 4 * block + i for block in range(4) for part in range(4) for i in range(4)]
        levels = shuffled(builder, levels, lanes)
        builder.store(levels, address(builder, target, args[8], levels.type), align=1)
        return context.get_dummy_value()

    index = types.intp
    return types.void(pixels, index, index, weights, index, index, index, out, index), generate


@intrinsic
def _pair(typing: Any, pixels: Any, at: Any, stride: Any, out: Any, to: Any) -> Any:
    """Four stored pixels from byte `at` on, each with the next one: red, red, green, green, blue, blue, 0, 0.

    Of four rows, `stride` bytes apart: a pixel of all four, then the next.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, target = (data_of(context, builder, signature, args, i) for i in (0, 3))
        word = ir.IntType(64)
        rows = [
            load(builder, source, builder.add(args[1], builder.mul(args[2], word(row))), 8, READ) for row in range(ROWS)
        ]
        pixels = joined(builder, rows)
        zeros = constant(pixels.type, 0)
        for x in range(PAIRED):
            lanes = []
            for row in range(ROWS):
                for value in (0, 3, 1, 4, 2, 5):
                    lanes += [READ * row + 3 * x + value, ROWS * READ]
                lanes += [ROWS * READ] * 4
            values = builder.bitcast(shuffled(builder, pixels, lanes, zeros), ir.VectorType(ir.IntType(16), PAIRS))
            builder.store(values, address(builder, target, builder.add(args[4], word(x * PAIRS)), values.type), align=2)
        return context.get_dummy_value()

    return types.void(pixels, types.intp, types.intp, out, types.intp), generate


def _sum_pairs(fixed: int) -> Any:
    """The sums for four output pixels of four rows: `fixed` pairs of taps or, for 0, as many as an argument says."""

    @intrinsic
    def sum_pairs(
        typing: Any, paired: Any, at: Any, x: Any, weights: Any, pairs: Any, bits: Any, out: Any, to: Any, stride: Any
    ) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            source, places, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 1, 3, 6))
            word, sum_of_rows = ir.IntType(64), ir.VectorType(ir.IntType(32), PAIRS // 2)

            def sums(pixel: int) -> Any:
                """For each row red, green and blue, and one to spare."""
                number = builder.add(args[2], word(pixel))
                begin = builder.load(builder.gep(places, [number]))
                weight = builder.mul(number, args[4])

                def product(pair: Any) -> Any:
                    place = builder.add(begin, builder.mul(pair, word(2 * PAIRS)))
                    two = _two_weights(builder, factors, builder.mul(builder.add(weight, pair), word(2)), PAIRS)
                    return pairs_summed(context, builder, load(builder, source, place, 16, PAIRS), two)

                if fixed:
                    return functools.reduce(builder.add, [product(word(pair)) for pair in range(fixed)])
                total = cgutils.alloca_once(builder, sum_of_rows)  # type: ignore[no-untyped-call]
                builder.store(constant(sum_of_rows, 0), total)
                with cgutils.for_range(builder, args[4]) as pair:
                    builder.store(builder.add(builder.load(total), product(pair.index)), total)
                return builder.load(total)

            levels = joined(builder, [_levels(builder, sums(pixel), args[5]) for pixel in range(TOGETHER)])
            for row in range(ROWS):
                lanes = [16 * pixel + 4 * row + channel for pixel in range(TOGETHER) for channel in range(3)]
                pixels = shuffled(builder, levels, lanes + [3] * SPILL)
                place = builder.add(args[7], builder.mul(args[8], word(row)))
                builder.store(pixels, address(builder, target, place, pixels.type), align=1)
            return context.get_dummy_value()

        index = types.intp
        return types.void(paired, at, index, weights, index, index, out, index, index), generate

    return sum_pairs


_sum_pairs_2, _sum_pairs_3, _sum_pairs_4, _sum_pairs_n = (_sum_pairs(fixed) for fixed in (2, 3, 4, 0))


def _two_weights(builder: ir.IRBuilder, weights: Any, place: Any, lanes: int) -> Any:
    """Two weights of 16 bits, from `place` on, again and again."""
    two = builder.bitcast(builder.gep(weights, [place]), ir.IntType(32).as_pointer())
    repeated = same(builder, builder.load(two, align=2), lanes // 2)
    return builder.bitcast(repeated, ir.VectorType(ir.IntType(16), lanes))


def _levels(builder: ir.IRBuilder, sums: Any, bits: Any) -> Any:
    """Sums with so many bits of fraction as levels: rounded, and cut off at 0 and 255."""
    shift = same(builder, builder.trunc(bits, sums.type.element), sums.type.count)
    one, lowest, highest = (constant(sums.type, value) for value in (1, 0, 255))
    rounded = builder.ashr(builder.add(sums, builder.shl(one, builder.sub(shift, one))), shift)
    rounded = builder.select(builder.icmp_signed("<", rounded, lowest), lowest, rounded)
    rounded = builder.select(builder.icmp_signed(">", rounded, highest), highest, rounded)
    return builder.trunc(rounded, ir.VectorType(ir.IntType(8), sums.type.count))
