import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from shards.common.errors import UsageError
from shards.sampling.crops import RRC_RATIO, RRC_SCALE, Crop, CropWindows, crop_windows, random_resized

sides = st.integers(40, 700)


def cut(
    crop: Crop, height: int, width: int, *, resize: int, size: int, ids: int = 1, epoch: int = 0, padding: int = 0
) -> CropWindows:
    return crop_windows(
        crop,
        np.arange(ids),
        np.full(ids, height, np.int32),
        np.full(ids, width, np.int32),
        resize=resize,
        size=size,
        flip=True,
        seed=0,
        epoch=epoch,
        padding=padding,
    )


@given(height=st.integers(32, 400), width=st.integers(32, 400), size=st.integers(1, 32))
def test_the_centre_crop_is_torchvisions(height: int, width: int, size: int) -> None:
    resize = min(height, width)
    position = torch.arange(height * width).reshape(1, height, width)
    expected = int(F.center_crop(position, [size, size])[0, 0, 0])
    window = cut("center", height, width, resize=resize, size=size)
    assert window.anchor[0].tolist() == [expected // width, expected % width]
    assert window.shape[0].tolist() == [size, size]


@given(height=sides, width=sides, resize=st.integers(32, 300))
def test_the_resized_image_has_torchvisions_size(height: int, width: int, resize: int) -> None:
    # The window of the whole shorter side reaches `resize` output pixels: its scale is stored / resized.
    out_height, out_width = F.resize(torch.empty(3, height, width), [resize]).shape[-2:]
    window = cut("center", height, width, resize=resize, size=resize)
    extent = (window.end - window.start)[0]
    assert extent == pytest.approx([resize * height / out_height, resize * width / out_width], rel=1e-5)


@given(height=sides, width=sides, resize=st.integers(32, 300), epoch=st.integers(0, 50))
def test_windows_lie_inside_the_image(height: int, width: int, resize: int, epoch: int) -> None:
    window = cut("random", height, width, resize=resize, size=32, ids=20, epoch=epoch)
    assert (window.anchor >= 0).all()
    assert (window.anchor + window.shape <= [height, width]).all()
    assert (window.start >= 0).all()
    assert (window.end <= window.shape + 1e-3).all()


def test_without_a_resize_the_window_is_the_decoded_region() -> None:
    window = cut("random", 256, 400, resize=256, size=224, ids=50)
    assert (window.shape == 224).all()
    assert (window.start == 0).all()
    assert (window.end == 224).all()


def test_random_windows_reach_every_position_evenly() -> None:
    window = cut("random", 256, 261, resize=256, size=224, ids=38_000)
    for axis, places in ((0, 33), (1, 38)):
        counts = np.bincount(window.anchor[:, axis], minlength=places)
        assert len(counts) == places
        # Chi-squared with at most 37 degrees of freedom: above 80 once in twenty thousand.
        assert ((counts - 38_000 / places) ** 2 / (38_000 / places)).sum() < 80


@given(height=st.integers(32, 90), width=st.integers(32, 90), padding=st.integers(0, 31), epoch=st.integers(0, 50))
def test_padded_windows_are_the_nearest_inside_the_image_and_a_shift(
    height: int, width: int, padding: int, epoch: int
) -> None:
    window = cut("random", height, width, resize=min(height, width), size=32, ids=20, epoch=epoch, padding=padding)
    room = np.array([height - 32, width - 32])
    assert (window.shape == 32).all()
    assert ((window.anchor >= 0) & (window.anchor <= room)).all()
    assert (np.abs(window.shift) <= padding).all()
    assert (window.anchor[window.shift > 0] == 0).all()
    assert (window.anchor == room)[window.shift < 0].all()


def test_padded_windows_reach_every_position_of_the_padded_image_evenly() -> None:
    window = cut("random", 32, 37, resize=32, size=32, ids=38_000, padding=4)
    for axis, room in ((0, 0), (1, 5)):
        corner, places = (window.anchor - window.shift)[:, axis], room + 9
        assert (corner.min(), corner.max()) == (-4, room + 4)
        counts = np.bincount(corner + 4)
        # Chi-squared with at most 13 degrees of freedom: above 40 once in eight thousand.
        assert ((counts - 38_000 / places) ** 2 / (38_000 / places)).sum() < 40


@pytest.mark.parametrize("crop", ["random", "center", "rrc"])
def test_without_padding_nothing_is_moved(crop: Crop) -> None:
    assert (cut(crop, 40, 50, resize=40, size=32, ids=50).shift == 0).all()


def test_rows_columns_and_flips_are_drawn_independently() -> None:
    window = cut("random", 1000, 1000, resize=1000, size=100, ids=20_000)
    table = np.corrcoef(np.stack([window.anchor[:, 0], window.anchor[:, 1], window.mirror]))
    assert np.abs(table - np.eye(3)).max() < 0.035


def test_half_of_the_images_are_mirrored_and_others_in_the_next_epoch() -> None:
    first = cut("random", 256, 256, resize=256, size=224, ids=10_000).mirror
    second = cut("random", 256, 256, resize=256, size=224, ids=10_000, epoch=1).mirror
    assert abs(first.mean() - 0.5) < 0.02
    assert abs((first != second).mean() - 0.5) < 0.02


@pytest.mark.parametrize("padding", [0, 20])
def test_a_samples_window_does_not_depend_on_its_batch(padding: int) -> None:
    height, width = np.array([300, 256, 280], np.int32), np.array([256, 500, 256], np.int32)
    ids = np.array([5, 900_000, 17])

    def draw(rows: list[int]) -> CropWindows:
        options = {"resize": 256, "size": 224, "flip": True, "seed": 3, "epoch": 4, "padding": padding}
        return crop_windows("random", ids[rows], height[rows], width[rows], **options)  # type: ignore[arg-type]

    together, alone = draw([0, 1, 2]), draw([1])
    assert np.array_equal(together.anchor[1], alone.anchor[0])
    assert np.array_equal(together.shift[1], alone.shift[0])
    assert together.mirror[1] == alone.mirror[0]


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match="257"):
        cut("center", 256, 300, resize=256, size=257)


Range = tuple[float, float]


def drawn(height: int, width: int, count: int, scale: Range = RRC_SCALE, ratio: Range = RRC_RATIO) -> np.ndarray:
    """Through `crop_windows`, as a loader asks for them."""
    heights, widths = np.full(count, height, np.int32), np.full(count, width, np.int32)
    cut = crop_windows(
        "rrc",
        np.arange(count),
        heights,
        widths,
        resize=0,
        size=8,
        flip=False,
        seed=0,
        epoch=0,
        scale=scale,
        ratio=ratio,
    )
    return np.column_stack([cut.anchor, cut.shape])


def torchvisions(height: int, width: int, count: int, scale: Range = RRC_SCALE, ratio: Range = RRC_RATIO) -> np.ndarray:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    return np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)], np.int64)


@pytest.mark.parametrize(
    ("height", "width", "area"),
    [
        *((*sides, ()) for sides in [(256, 341), (341, 256), (256, 256), (100, 400), (400, 100)]),
        (256, 341, ((0.2, 0.5), (0.9, 2.0))),
    ],
)
def test_random_resized_crops_are_distributed_as_torchvisions(height: int, width: int, area: tuple[Range, ...]) -> None:
    count = 6000
    ours, theirs = drawn(height, width, count, *area), torchvisions(height, width, count, *area)

    def features(window: np.ndarray) -> list[np.ndarray]:
        top, left, rows, columns = window.T.astype(float)
        return [
            rows * columns / (height * width),
            np.log(columns / rows),
            top / np.maximum(height - rows, 1),
            left / np.maximum(width - columns, 1),
        ]

    for one, other in zip(features(ours), features(theirs), strict=True):
        grid = np.sort(np.concatenate([one, other]))
        distance = np.abs(
            np.searchsorted(np.sort(one), grid, "right") - np.searchsorted(np.sort(other), grid, "right")
        ).max()
        # Kolmogorov-Smirnov for two samples: sqrt(-ln(0.0001 / 2) / n) at a risk of one in ten thousand.
        assert distance / count < (9.9 / count) ** 0.5


@given(height=st.integers(1, 600), width=st.integers(1, 600))
def test_random_resized_crops_lie_inside_the_image(height: int, width: int) -> None:
    top, left, rows, columns = drawn(height, width, 30).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (rows > 0).all()
    assert (columns > 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()


def test_a_window_of_an_extreme_ratio_has_a_pixel_at_least() -> None:
    """torchvision computes a window without rows here, which nothing can decode."""
    thirty = np.full(30, 32, np.int32)
    for ratio, window in (((90, 100), [15, 0, 1, 32]), ((0.01, 0.011), [0, 15, 32, 1])):
        windows = random_resized(np.arange(30), thirty, thirty, 0, 0, ratio=ratio, scale=(0.9, 1.0))
        assert windows.tolist() == [window] * 30


@pytest.mark.parametrize(("height", "width"), [(1, 600), (600, 1), (20, 600)])
def test_without_a_window_that_fits_the_fallback_is_torchvisions(height: int, width: int) -> None:
    # No attempt can succeed at these shapes, so torchvision always gives the same window.
    expected = torchvisions(height, width, 20)
    assert len({tuple(window) for window in expected.tolist()}) == 1
    assert np.array_equal(drawn(height, width, 20), expected)
