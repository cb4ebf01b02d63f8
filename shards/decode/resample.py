"""Antialiased resize of a window of 8-bit RGB pixels to a square: torchvision's and Pillow's filters.

What follows is about the bilinear one; `bicubic.py` has the sums of the other.

The filter is a triangle over the window as wide as two output pixels, or as two stored pixels where the image grows.
The pixels are those of the exact sums within rounding (0.55 of a level for scales to 5), and the same on every
processor: everything after the weights is whole numbers. Torch's kernel for uint8 rounds between the two directions, so
the two differ by one level in every sixth pixel.

For each output row, the rows under the filter are summed first, which leaves one row of 16-bit values in the
processor's first-level cache; then the columns are summed. Mirroring costs nothing: the columns are weighted in reverse
order.

The two inner sums are written as vectors, because compilers find neither by themselves: the upper half of 16-bit
products is one instruction for 32 values (`vpmulhuw`), but only where the compiler sees both factors' width in the same
block; and three interleaved channels with their own pixels for each output are no loop that it knows. LLVM turns the
vectors into whatever the processor has.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shards.decode.bicubic import cubic_weights
from shards.decode.bicubic import sum_columns as sum_columns_cubic
from shards.decode.bicubic import sum_rows as sum_rows_cubic
from shards.decode.vectors import address, constant, data_of, load, same, shuffled, size_of
from shards.sampling.crops import Corners

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

# Values of a row summed at a time.
LANES = 32
# Values of a pair of neighbouring pixels, as read and as weighted: two times three channels, and two to spare.
PAIR, PAIR_LANES = 6, 8
# What the last read of a row may touch beyond it, and the last write.
_SLACK = 2 * PAIR_LANES
_SPILL = 1


@numba.njit(nogil=True, cache=True)
def resample(
    region: UInt8Array, start: Corners, end: Corners, mirror: np.int32, cubic: bool | None, out: UInt8Array
) -> None:
    """Resizes a window of `region` into `out`, antialiased: bilinear where `cubic` is None, otherwise bicubic.

    None has a type of its own, so numba compiles the one that is used and not both.

    `region` (height, width, 3), may be columns of a wider image; `out` (rows, columns, 3), contiguous. `start` and
    `end` (2,): the window's corners, (row, column) in pixels of the region, also between pixels; the filter reads
    what lies around the window as far as the region goes. `mirror`: 1 to flip left and right, else 0. Raises
    ValueError for a window that is empty or not inside the region, and for pixels that do not lie side by side.
    """
    _check(region, start, end)
    if cubic is not None:
        above, weights, bits, across = _cubic(region, start, end, mirror, out.shape[:2])
        flat, values = out.reshape(out.size), 3 * out.shape[1]
        for y in range(out.shape[0]):
            sum_rows_cubic(across, above[y] - above[0], weights, y, bits, flat, y * values, values)
        return
    above, rows, left, columns, rounding = _prepare(region, start, end, mirror, out.shape[:2])
    sums = np.zeros(3 * region.shape[1] + _SLACK, np.uint16)
    line = np.empty(3 * out.shape[1] + _SPILL, np.uint8)
    for y in range(out.shape[0]):
        sum_rows(region, above[y], rows[y], sums[: 3 * region.shape[1]])
        _sum_columns(sums, left, columns, rounding, line)
        _copy(line, out[y].reshape(3 * out.shape[1]))


@numba.njit(nogil=True, cache=True)
def resample_normalise(
    region: UInt8Array,
    start: Corners,
    end: Corners,
    mirror: np.int32,
    cubic: bool | None,
    scale: Float32Array,
    bias: Float32Array,
    out: Float32Array,
) -> None:
    """As `resample`, into `out` float32 (3, rows, columns): pixel * scale[channel] + bias[channel]."""
    _check(region, start, end)
    _, height, width = out.shape
    line = np.empty(3 * width + _SPILL, np.uint8)
    if cubic is not None:
        above, weights, bits, across = _cubic(region, start, end, mirror, (height, width))
        for y in range(height):
            sum_rows_cubic(across, above[y] - above[0], weights, y, bits, line, 0, 3 * width)
            _normalise(line, scale, bias, out[0, y], out[1, y], out[2, y])
        return
    above, rows, left, columns, rounding = _prepare(region, start, end, mirror, (height, width))
    sums = np.zeros(3 * region.shape[1] + _SLACK, np.uint16)
    for y in range(height):
        sum_rows(region, above[y], rows[y], sums[: 3 * region.shape[1]])
        _sum_columns(sums, left, columns, rounding, line)
        _normalise(line, scale, bias, out[0, y], out[1, y], out[2, y])


@numba.njit(nogil=True, cache=True)
def _check(region, start, end):  # type: ignore[no-untyped-def]
    if region.strides[1] != 3 or region.strides[2] != 1:
        raise ValueError("the pixels of a row to resize do not lie side by side")
    for axis in range(2):
        if not 0.0 <= start[axis] < end[axis] <= region.shape[axis]:
            raise ValueError("the window to resize is empty or not inside the region")


@numba.njit(nogil=True, cache=True)
def _cubic(region, start, end, mirror, size):  # type: ignore[no-untyped-def]
    """For each output row the first stored row, the weights and their bits; and the stored rows, resized across.

    Row 0 of those is the first one of output row 0.
    """
    rows, columns = size
    above, weights, bits = cubic_weights(np.float64(start[0]), np.float64(end[0]), region.shape[0], rows, np.int32(0))
    left, across, precision = cubic_weights(np.float64(start[1]), np.float64(end[1]), region.shape[1], columns, mirror)
    last = min(above[rows - 1] + weights.shape[1], region.shape[0])
    return above, weights, bits, sum_columns_cubic(region, above[0], last, left, across, precision)


@numba.njit(nogil=True, cache=True)
def _prepare(region, start, end, mirror, size):  # type: ignore[no-untyped-def]
    """For each output row the first stored row and the weights, the same for each output column, and the rounding."""
    above, rows = _weights(np.float64(start[0]), np.float64(end[0]), region.shape[0], size[0])
    left, columns = _weights(np.float64(start[1]), np.float64(end[1]), region.shape[1], size[1])
    # Half of one step of the result, and what is lost before: half a unit a product in the mean, and one unit of
    # 256 a direction, because the weights add up to 65,535 and not to 65,536. More than 255 could overflow.
    rounding = np.uint16(min(128 + 1 + (rows.shape[1] + columns.shape[1]) // 2, 255))
    if mirror:
        left, columns = left[::-1].copy(), columns[::-1].copy()
    return above, rows, left, _in_pairs(columns), rounding


@numba.njit(nogil=True, cache=True)
def _weights(start, end, limit, count):  # type: ignore[no-untyped-def]
    """What each of `count` outputs is made of: the first source pixel (count,), and weights (count, taps).

    A row of weights adds up to 65,535. Near the ends of the source, the part of the filter that lies inside it does.
    """
    scale = (end - start) / count
    support = max(scale, 1.0)
    taps = min(limit, int(np.ceil(2.0 * support)))
    first = np.empty(count, np.int64)
    whole = np.empty((count, taps), np.uint16)
    exact = np.empty(taps, np.float64)
    for i in range(count):
        centre = start + (i + 0.5) * scale
        first[i] = min(max(0, int(centre - support + 0.5)), limit - taps)
        total = 0.0
        for tap in range(taps):
            total += max(0.0, support - abs(first[i] + tap + 0.5 - centre))
            exact[tap] = total
        before = 0
        for tap in range(taps):
            # Rounding the running sum, and not each weight, keeps the total exact.
            now = int(exact[tap] * (65535.0 / total) + 0.5)
            whole[i, tap] = now - before
            before = now
    return first, whole


@numba.njit(nogil=True, cache=True)
def _in_pairs(weights):  # type: ignore[no-untyped-def]
    """Weights (columns, taps) as they are multiplied: (columns, pairs of taps, 8), each for three channels."""
    count, taps = weights.shape
    pairs = np.zeros((count, (taps + 1) // 2, PAIR_LANES), np.uint16)
    for x in range(count):
        for tap in range(taps):
            for channel in range(3):
                pairs[x, tap // 2, 3 * (tap % 2) + channel] = weights[x, tap]
    return pairs


@numba.njit(nogil=True, cache=True)
def sum_rows(region, first, weights, out):  # type: ignore[no-untyped-def]
    """Weighted sum of whole rows of `region` from row `first` on, in 256ths of a level: uint16 (values of a row,)."""
    if out.size < LANES:
        for x in range(out.size):
            total = np.uint32(0)
            for tap in range(weights.size):
                value = np.uint32(region[first + tap, x // 3, x % 3]) << np.uint32(8)
                total += (value * np.uint32(weights[tap])) >> np.uint32(16)
            out[x] = total
        return
    stride = region.strides[0]
    start, last = first * stride, out.size - LANES
    for x in range(0, last, LANES):
        _sum_lanes(region, start + x, stride, weights, out, x)  # type: ignore[call-arg]
    # The last values, some of them a second time.
    _sum_lanes(region, start + last, stride, weights, out, last)  # type: ignore[call-arg]


@numba.njit(nogil=True, cache=True)
def _sum_columns(sums, left, pairs, rounding, out):  # type: ignore[no-untyped-def]
    """A row of the result from a row of 256ths. Each write spills one byte, which the next one puts right."""
    count = pairs.shape[1]
    flat = pairs.reshape(pairs.size)
    # One, two and three pairs, which is any scale up to 3, get code without a loop.
    if count == 1:
        for x in range(left.size):
            _sum_pairs_1(sums, 3 * left[x], flat, x * PAIR_LANES, count, rounding, out, 3 * x)
    elif count == 2:
        for x in range(left.size):
            _sum_pairs_2(sums, 3 * left[x], flat, x * 2 * PAIR_LANES, count, rounding, out, 3 * x)
    elif count == 3:
        for x in range(left.size):
            _sum_pairs_3(sums, 3 * left[x], flat, x * 3 * PAIR_LANES, count, rounding, out, 3 * x)
    else:
        for x in range(left.size):
            _sum_pairs_n(sums, 3 * left[x], flat, x * count * PAIR_LANES, count, rounding, out, 3 * x)


@numba.njit(nogil=True, cache=True)
def _copy(line, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        out[x] = line[x]


@numba.njit(nogil=True, cache=True)
def _normalise(line, scale, bias, red, green, blue):  # type: ignore[no-untyped-def]
    for x in range(red.size):
        red[x] = np.float32(line[3 * x]) * scale[0] + bias[0]
        green[x] = np.float32(line[3 * x + 1]) * scale[1] + bias[1]
        blue[x] = np.float32(line[3 * x + 2]) * scale[2] + bias[2]


# The two inner sums, in LLVM's language. `builder` writes the instructions of the function being compiled.


@intrinsic
def _sum_lanes(typing, pixels, at, stride, weights, out, to):  # type: ignore[no-untyped-def]
    """out[to : to + 32] = the sum over taps of pixels[at + tap * stride :][:32] * 256 * weights[tap] / 65536."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 3, 4))
        sums = ir.VectorType(ir.IntType(16), LANES)
        total = cgutils.alloca_once(builder, sums)  # type: ignore[no-untyped-call]
        builder.store(constant(sums, 0), total)
        with cgutils.for_range(builder, size_of(context, builder, signature, args, 3)) as tap:
            place = builder.add(args[1], builder.mul(tap.index, args[2]))
            values = builder.zext(load(builder, source, place, 8, LANES), sums)
            weight = same(builder, builder.load(builder.gep(factors, [tap.index])), LANES)
            product = upper_half(builder, builder.shl(values, constant(sums, 8)), weight)
            builder.store(builder.add(builder.load(total), product), total)
        builder.store(builder.load(total), address(builder, target, args[5], sums), align=2)
        return context.get_dummy_value()

    return types.void(pixels, types.intp, types.intp, weights, out, types.intp), generate


def _sum_pairs(fixed: int) -> Any:
    """The sum for one output pixel: `fixed` pairs of stored pixels or, for 0, as many as come as an argument."""

    @intrinsic
    def sum_pairs(
        typing: Any, sums: Any, at: Any, weights: Any, weight: Any, pairs: Any, rounding: Any, out: Any, to: Any
    ) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            source, factors, target = (data_of(context, builder, signature, args, i) for i in (0, 2, 6))
            kind = ir.VectorType(ir.IntType(16), PAIR_LANES)
            word = ir.IntType(64)

            def product(pair: Any) -> Any:
                place = builder.add(args[1], builder.mul(pair, word(PAIR)))
                factor = builder.add(args[3], builder.mul(pair, word(PAIR_LANES)))
                values = load(builder, source, place, 16, PAIR_LANES)
                return upper_half(builder, values, load(builder, factors, factor, 16, PAIR_LANES))

            if fixed:
                both = product(word(0))
                for pair in range(1, fixed):
                    both = builder.add(both, product(word(pair)))
            else:
                total = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
                builder.store(constant(kind, 0), total)
                with cgutils.for_range(builder, args[4]) as pair:
                    builder.store(builder.add(builder.load(total), product(pair.index)), total)
                both = builder.load(total)
            # Red, green, blue of the left pixels and of the right ones; the fourth value is the spill.
            left, right = (shuffled(builder, both, range(first, first + 4)) for first in (0, 3))
            rounded = builder.add(builder.add(left, right), same(builder, args[5], 4))
            levels = builder.trunc(builder.lshr(rounded, constant(rounded.type, 8)), ir.VectorType(ir.IntType(8), 4))
            builder.store(levels, address(builder, target, args[7], levels.type), align=1)
            return context.get_dummy_value()

        index = types.intp
        return types.void(sums, index, weights, index, index, types.uint16, out, index), generate

    return sum_pairs


_sum_pairs_1, _sum_pairs_2, _sum_pairs_3, _sum_pairs_n = (_sum_pairs(fixed) for fixed in (1, 2, 3, 0))


def upper_half(builder: ir.IRBuilder, left: Any, right: Any) -> Any:
    """The upper 16 bits of the 32-bit products of vectors of 16 bits without sign."""
    wide = ir.VectorType(ir.IntType(32), left.type.count)
    product = builder.mul(builder.zext(left, wide), builder.zext(right, wide))
    return builder.trunc(builder.lshr(product, constant(wide, 16)), left.type)
