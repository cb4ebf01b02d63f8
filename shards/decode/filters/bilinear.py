"""The two sums of an antialiased bilinear resize: rows first, then columns, of four rows of the result at once.

The filter is a triangle over the window as wide as two output pixels, or as two stored pixels where the image grows.
The pixels are those of the exact sums within rounding (0.55 of a level for scales to 5), and the same on every
processor: everything after the weights is whole numbers. Torch's kernel for uint8 rounds between the two directions, so
the two differ by one level in every sixth pixel.

The sums of rows stay in the processor's first-level cache: 16-bit values, for each stored column those of four rows
side by side. One instruction weights them all, and the weights of a column are the same for four rows. A product is the
upper half of one of 32 bits, 16 or 32 of which are one instruction (`vpmulhuw`).
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from shards.decode.vectors import (
    address,
    constant,
    data_of,
    interleaved,
    intrinsic,
    joined,
    load,
    same,
    shuffled,
    upper_half,
)

# Rows of the result that are made together; and 16-bit values of a pixel in each: three channels, and one to spare.
ROWS, PIXEL = 4, 4
# Values of one pixel in all these rows; and those of two pixels of a row, which have the same weight.
QUAD, TWO = ROWS * PIXEL, 2 * PIXEL
# Stored pixels whose rows are summed together; of each four, so many bytes are read, and are needed.
ACROSS, READ, NEEDED = 8, 16, 12
# Columns of the result that are made together, and bytes that may be written beyond the last ones.
TOGETHER, SPILL = 8, 21


@numba.njit(nogil=True, cache=True)
def linear_weights(start, end, limit, count):  # type: ignore[no-untyped-def]
    """What each of `count` outputs is made of: the first source pixel (count,), and weights uint16 (taps, count).

    The weights of an output add up to 65,535. Near the ends of the source, the part of the filter that lies inside it
    does.
    """
    scale = (end - start) / count
    support = max(scale, 1.0)
    taps = min(limit, int(np.ceil(2.0 * support)))
    centre, first = np.empty(count, np.float64), np.empty(count, np.int64)
    for i in range(count):
        centre[i] = start + (i + 0.5) * scale
        first[i] = min(max(0, int(centre[i] - support + 0.5)), limit - taps)
    # Output after output for each tap, so that the compiler finds vector instructions.
    exact, total = np.empty((taps, count), np.float64), np.zeros(count, np.float64)
    for tap in range(taps):
        _add_tap(first, centre, tap, support, total, exact[tap])
    weights, before = np.empty((taps, count), np.uint16), np.zeros(count, np.int32)
    for tap in range(taps):
        # Rounding the running sum, and not each weight, keeps the total exact.
        _round(exact[tap], total, before, weights[tap])
    return first, weights


@numba.njit(nogil=True, cache=True)
def _add_tap(first, centre, tap, support, total, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        height = support - abs(np.float64(first[i] + tap) + 0.5 - centre[i])
        total[i] += height if height > 0.0 else 0.0
        out[i] = total[i]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _round(exact, total, before, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        now = np.int32(exact[i] * (65535.0 / total[i]) + 0.5)
        out[i] = now - before[i]
        before[i] = now


@numba.njit(nogil=True, cache=True)
def for_rows(first, weights):  # type: ignore[no-untyped-def]
    """`linear_weights` as `sum_rows` takes them: first rows, and factors in one dimension.

    They are for a multiple of `ROWS` outputs, as if there were more of the last one. For `ROWS` outputs and each tap, a
    weight `TWO` times, then that of the next output.
    """
    taps, count = weights.shape
    padded = (count + ROWS - 1) // ROWS * ROWS
    above, factors = np.empty(padded, np.int64), np.empty(padded * taps * TWO, np.uint16)
    for y in range(padded):
        output = min(y, count - 1)
        above[y] = first[output]
        for tap in range(taps):
            weight, to = weights[tap, output], TWO * ((y // ROWS * taps + tap) * ROWS + y % ROWS)
            for i in range(TWO):
                factors[to + i] = weight
    return above, factors


@numba.njit(nogil=True, cache=True)
def for_columns(first, weights, mirror):  # type: ignore[no-untyped-def]
    """`linear_weights` as `sum_columns` takes them: places in `sums`, and factors in one dimension.

    They are for a multiple of `TOGETHER` outputs, as if there were more, of no weight. For `TOGETHER` outputs and each
    tap, a weight twice, as one number of 32 bits, then that of the next output. `mirror`: the last output first.
    """
    taps, count = weights.shape
    padded = (count + TOGETHER - 1) // TOGETHER * TOGETHER
    at, factors = np.zeros(padded, np.int64), np.zeros(padded * taps, np.uint32)
    for x in range(count):
        output = count - 1 - x if mirror else x
        at[x] = QUAD * first[output]
        for tap in range(taps):
            weight = np.uint32(weights[tap, output])
            factors[(x // TOGETHER * taps + tap) * TOGETHER + x % TOGETHER] = weight << np.uint32(16) | weight
    return at, factors


@numba.njit(nogil=True, cache=True)
def room(region, width):  # type: ignore[no-untyped-def]
    """Memory for the sums of rows of `region` and for `ROWS` rows of the result, `width` pixels each."""
    return np.empty(QUAD * region.shape[1], np.uint16), np.empty(3 * ROWS * width + SPILL, np.uint8)


@numba.njit(nogil=True, cache=True)
def sum_rows(region, above, factors, taps, y, sums):  # type: ignore[no-untyped-def]
    """Weighted sums of whole rows of `region`, in 256ths of a level: those of the `ROWS` outputs from `y` on.

    `above`, `factors`: as `for_rows` gives them. `sums` (columns * QUAD,): outputs 0, 2, 1, 3 of a column,
    then those of the next one.
    """
    width, stride, factor = region.shape[1], region.strides[0], y * taps * TWO
    if width < ACROSS:
        for row in range(ROWS):
            for x in range(3 * width):
                total = np.uint32(0)
                for tap in range(taps):
                    weight = np.uint32(factors[factor + TWO * (tap * ROWS + row)])
                    total += (np.uint32(region[above[y + row] + tap, x // 3, x % 3]) * weight) >> np.uint32(8)
                sums[x // 3 * QUAD + (row % 2 * 2 + row // 2) * PIXEL + x % 3] = total
        return
    a, b, c, d = above[y] * stride, above[y + 1] * stride, above[y + 2] * stride, above[y + 3] * stride
    last = width - ACROSS
    for x in range(0, last, ACROSS):
        _sum_quads(region, a + 3 * x, b + 3 * x, c + 3 * x, d + 3 * x, stride, factors, factor, taps, sums, x * QUAD)
    # The last columns, some of them a second time.
    x = 3 * last
    _sum_last_quads(region, a + x, b + x, c + x, d + x, stride, factors, factor, taps, sums, last * QUAD)


@numba.njit(nogil=True, cache=True)
def sum_columns(sums, at, factors, taps, rounding, out, width, planes):  # type: ignore[no-untyped-def]
    """`ROWS` rows of the result from those of `sum_rows`, one after the other: `out` uint8 (ROWS * 3 * width + SPILL,).

    `at`, `factors`: as `for_columns` gives them. `planes` None: pixel after pixel. Otherwise red of all rows, then
    green and blue.
    """
    pixel = 3 if planes is None else 1
    # From right to left, so that what is written beyond the end of a row is put right by the begin of the next one.
    for x in range(at.size - TOGETHER, -1, -TOGETHER):
        _sum_taps(sums, at, x, factors, taps, rounding, out, pixel * x, pixel * width, planes)


def _sum_rows(last: int) -> Any:
    """`ACROSS` stored columns from each of four places on, summed over taps. `last`: bytes to read of the last four."""

    @intrinsic
    def sum_quads(typing, pixels, a, b, c, d, stride, factors, factor, taps, out, to):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            source, weights, target = (data_of(context, builder, signature, args, i) for i in (0, 6, 9))
            word, kind = ir.IntType(64), ir.VectorType(ir.IntType(16), ROWS * TWO)
            # Of each two columns: both of output 0, then of output 1, and so on.
            totals = [cgutils.alloca_once(builder, kind) for _ in range(ACROSS // 2)]  # type: ignore[no-untyped-call]
            for total in totals:
                builder.store(constant(kind, 0), total)

            def read(row: int, four: int, down: Any) -> Any:
                place = builder.add(builder.add(args[1 + row], down), word(four * NEEDED))
                values = load(builder, source, place, 8, last if four else READ)
                return shuffled(builder, values, [i % values.type.count for i in range(READ)])

            with cgutils.for_range(builder, args[8]) as tap:
                down = builder.mul(tap.index, args[5])
                weight = builder.add(args[7], builder.mul(tap.index, word(kind.count)))
                weight = load(builder, weights, weight, 16, kind.count)
                fours = [joined(builder, [read(row, four, down) for row in range(ROWS)]) for four in (0, 1)]
                for two, total in enumerate(totals):
                    # A zero and then a byte are 256ths of a level. Each fourth byte is of the next pixel.
                    pixels = [READ * row + 3 * (two % 2 * 2 + x) for row in range(ROWS) for x in (0, 1)]
                    lanes = [lane for pixel in pixels for i in range(PIXEL) for lane in (0, ROWS * READ + pixel + i)]
                    four = fours[two // 2]
                    values = builder.bitcast(shuffled(builder, constant(four.type, 0), lanes, four), kind)
                    builder.store(builder.add(builder.load(total), upper_half(builder, values, weight)), total)
            quad = ir.VectorType(ir.IntType(16), QUAD)
            for x in range(ACROSS):
                both = builder.bitcast(builder.load(totals[x // 2]), ir.VectorType(word, 2 * ROWS))
                one = builder.bitcast(shuffled(builder, both, [x % 2 + i for i in (0, 4, 2, 6)]), quad)
                place = builder.add(args[10], word(x * QUAD))
                builder.store(one, address(builder, target, place, quad), align=2)
            return context.get_dummy_value()

        index = types.intp
        return types.void(pixels, index, index, index, index, index, factors, index, index, out, index), generate

    return sum_quads


_sum_quads, _sum_last_quads = _sum_rows(READ), _sum_rows(NEEDED)


@intrinsic
def _sum_taps(typing, sums, at, x, factors, taps, rounding, out, to, line, planes):  # type: ignore[no-untyped-def]
    """`TOGETHER` pixels of `ROWS` rows, from column `x` on, summed over taps; see `sum_columns`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, places, weights, target = (data_of(context, builder, signature, args, i) for i in (0, 1, 3, 6))
        word, kind = ir.IntType(64), ir.VectorType(ir.IntType(16), QUAD)
        begins = [builder.load(builder.gep(places, [builder.add(args[2], word(i))])) for i in range(TOGETHER)]
        totals = [cgutils.alloca_once(builder, kind) for _ in begins]  # type: ignore[no-untyped-call]
        for total in totals:
            builder.store(same(builder, args[5], QUAD), total)
        first = builder.mul(args[2], args[4])
        with cgutils.for_range(builder, args[4]) as tap:
            weight = builder.add(first, builder.mul(tap.index, word(TOGETHER)))
            for i, (begin, total) in enumerate(zip(begins, totals, strict=True)):
                values = load(builder, source, builder.add(begin, builder.mul(tap.index, word(QUAD))), 16, QUAD)
                twice = builder.load(builder.gep(weights, [builder.add(weight, word(i))]))
                factor = builder.bitcast(same(builder, twice, QUAD // 2), kind)
                builder.store(builder.add(builder.load(total), upper_half(builder, values, factor)), total)

        def two_pixels(i: int) -> Any:
            """The levels, which are the upper halves of the sums: byte after byte those of two pixels."""
            left, right = builder.load(totals[i]), builder.load(totals[i + 1])
            return builder.or_(builder.lshr(left, constant(kind, 8)), builder.and_(right, constant(kind, 0xFF00)))

        def write(line: int, column: int, levels: Any) -> None:
            place = builder.add(builder.add(args[7], builder.mul(args[8], word(line))), word(column))
            builder.store(levels, address(builder, target, place, levels.type), align=1)

        # For each four pixels: four reds, greens and blues, and four to spare, of a row: of rows 0 and 1, and 2 and 3.
        fours = [[interleaved(builder, two_pixels(i), two_pixels(i + 2), half) for half in (0, 1)] for i in (0, 4)]
        levels = ir.VectorType(ir.IntType(8), 2 * QUAD)
        rows = [(half, range(16 * row, 16 * row + 16)) for half in (0, 1) for row in (0, 1)]
        if isinstance(signature.args[9], types.NoneType):
            for line, (half, lanes) in enumerate(rows):
                left, right = (shuffled(builder, builder.bitcast(four[half], levels), lanes) for four in fours)
                pixels = [4 * channel + pixel for pixel in range(4) for channel in range(3)]
                write(line, 0, shuffled(builder, left, [*pixels, *(16 + i for i in pixels[:4])], right))
                write(line, 16, shuffled(builder, right, pixels[4:]))
        else:
            for channel in range(3):
                for line, (half, lanes) in enumerate(rows):
                    left, right = (
                        builder.bitcast(four[half], ir.VectorType(ir.IntType(32), QUAD // 2)) for four in fours
                    )
                    eights = builder.bitcast(interleaved(builder, left, right, channel // 2), levels)
                    eight = lanes[8 * (channel % 2) :][:8]
                    write(ROWS * channel + line, 0, shuffled(builder, eights, eight))
        return context.get_dummy_value()

    index = types.intp
    return types.void(sums, at, index, factors, index, types.uint16, out, index, index, planes), generate
