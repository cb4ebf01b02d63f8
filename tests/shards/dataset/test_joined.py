"""Several splits as one: joined, and mixed in proportions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards import Loader, concatenate, mix
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.feed.joined import JoinedShards
from tests.conftest import jpeg, photo, write_split

CLASSES = 5


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[Split]:
    """Three splits of 20, 9 and 13 images, all of which differ."""
    made = []
    for part, count in enumerate((20, 9, 13)):
        images = [jpeg(photo(16, 16, 100 * part + seed)) for seed in range(count)]
        made.append(write_split(tmp_path_factory.mktemp("data"), images, short_side=16, classes=CLASSES))
    return made


def load(split: Split, **options: Any) -> Loader:
    return Loader(split, **{"batch_size": 4, "train": True, "size": 16, "threads": 1, "ids": True, **options})


def seen(loader: Loader) -> dict[int, bytes]:
    """The pixels of each sample of an epoch."""
    return {
        int(number): image.numpy().tobytes()
        for images, _, ids in loader
        for image, number in zip(images, ids, strict=True)
    }


def test_joined_splits_are_one_after_the_other(splits: list[Split]) -> None:
    joined = concatenate(splits)
    assert len(joined) == 42
    assert joined.labels.tolist() == [label for split in splits for label in split.labels]
    assert joined.keys().tolist() == [key for split in splits for key in split.keys()]  # noqa: SIM118
    assert [path.name for path in joined.shard_paths] == [path.name for split in splits for path in split.shard_paths]
    assert joined.shard_place(3) == splits[1].shard_place(0)
    assert repr(joined).startswith("<Split train and train and train: 42 samples in 7 shards, 5 classes")


def test_a_joined_split_shows_the_images_of_its_parts(splits: list[Split]) -> None:
    parts = [splits[0].where([1, 3]), splits[2].select([0, 5, 6, 8, 11]).where([0, 1])]
    with pytest.raises(UsageError, match="has other classes than"):
        concatenate(parts)
    parts = [splits[0].select(range(2, 12)), splits[2].select([0, 5, 12])]
    expected = []
    for part in parts:
        with load(part, train=False) as loader:
            expected += list(seen(loader).values())
    with load(concatenate(parts), train=False) as loader:
        found = seen(loader)
    assert list(found) == list(range(13))
    assert list(found.values()) == expected


def test_a_joined_split_is_divided_and_joined_as_any_other(splits: list[Split]) -> None:
    joined = concatenate(splits[:2])
    rest, held = joined.hold_out(0.2)
    assert sorted([*rest.keys(), *held.keys()]) == sorted(joined.keys())
    with load(held, train=False) as loader:
        assert len(seen(loader)) == len(held)
    again = concatenate([joined.select(range(18, 22)), splits[2]])
    with load(again, train=False) as loader:
        assert len(seen(loader)) == 4 + 13


def test_the_identity_of_a_joined_split_follows_its_parts(splits: list[Split]) -> None:
    fingerprints = {
        concatenate(parts).manifest.fingerprint
        for parts in (splits[:2], [splits[0], splits[1].select([0])], [splits[0], splits[1].select([1])])
    }
    assert len(fingerprints) == 3


def test_a_damaged_sample_is_named_in_its_own_part(splits: list[Split], tmp_path: Path) -> None:
    broken = write_split(tmp_path, [jpeg(photo(16, 16, seed)) for seed in range(3)], short_side=16, classes=CLASSES)
    path = broken.shard_paths[0]
    data = bytearray(path.read_bytes())
    data[broken.index.offset[1] + 40] ^= 0xFF
    path.write_bytes(data)
    with (
        pytest.warns(UserWarning, match=f"sample 00000001 in {path}"),
        load(concatenate([splits[1], broken]), train=False, on_error="omit") as loader,
    ):
        assert set(seen(loader)) == set(range(12)) - {10}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shares=st.lists(st.sampled_from([0.1, 0.5, 1, 2, 7]), min_size=3, max_size=3))
def test_a_mix_takes_its_proportions_and_no_sample_twice(splits: list[Split], shares: list[float]) -> None:
    mixed = mix(dict(zip(splits, shares, strict=True)))
    assert mixed.takes is not None
    longest = min(len(split) / share for split, share in zip(splits, shares, strict=True))
    for split, share, take in zip(splits, shares, mixed.takes, strict=True):
        assert 1 <= take <= len(split)
        assert take == max(1, int(longest * share + 1e-9))
    assert any(take == len(split) for split, take in zip(splits, mixed.takes, strict=True))
    draw = Loader(mixed, batch_size=1, train=True, size=16, threads=1)._feed.config.sampling.draw
    starts = np.cumsum([0, *map(len, splits)])
    for epoch in range(3):
        ids = draw.draws(mixed.index.shard, "global", 0, epoch, 1)
        assert len(set(ids.tolist())) == len(ids) == sum(mixed.takes)
        assert np.histogram(ids, starts)[0].tolist() == list(mixed.takes)


def test_a_mix_resumes_exactly_on_another_number_of_ranks(splits: list[Split]) -> None:
    mixed = mix({splits[0]: 2, splits[1]: 1})
    with load(mixed, drop_last=False) as loader:
        assert loader.samples == 18 + 9
        whole = seen(loader)
        assert len(whole) == 27
        assert set(seen(loader)) != set(whole)  # another part of the larger split
        loader.set_epoch(0)
        batches = iter(loader)
        first = {int(number) for _ in range(3) for number in next(batches)[2]}
        state = loader.state_dict()
    rest: dict[int, bytes] = {}
    for rank in range(3):
        with load(mixed, batch_size=2, rank=rank, world_size=3, drop_last=False) as other:
            other.load_state_dict(state)
            rest |= seen(other)
    assert rest == {number: image for number, image in whole.items() if number not in first}


def test_the_state_of_other_parts_is_refused(splits: list[Split]) -> None:
    first, second, _ = splits
    joined = [concatenate([first, second]), mix({first: 2, second: 1}), mix({first: 1, second: 1})]
    others = [concatenate([second, first]), mix({second: 1, first: 2}), mix({first: 2, second: 3})]
    for one, other in zip([*joined, joined[0].select([0])], [*others, others[0].select([0])], strict=True):
        state = load(one, batch_size=1).state_dict()
        with pytest.raises(UsageError, match="the loader's state is of another part of the split"):
            load(other, batch_size=1).load_state_dict(state)


def test_what_is_no_mix_or_no_list_of_splits_is_refused(splits: list[Split]) -> None:
    mixed = mix({splits[0]: 1, splits[1]: 1})
    wrong: list[tuple[Any, str]] = [
        (lambda: concatenate([]), "concatenate takes a list of splits"),
        (lambda: concatenate(splits[0]), "concatenate takes a list of splits"),  # type: ignore[arg-type]
        (lambda: concatenate([splits[0], 5]), "concatenate takes a list of splits"),  # type: ignore[list-item]
        (lambda: concatenate([mixed, splits[2]]), "is a mix already"),
        (lambda: mix(splits), "mix takes a mapping"),  # type: ignore[arg-type]
        (lambda: mix({"train": 1}), "^mix takes a mapping of splits"),  # type: ignore[dict-item]
        (lambda: mix({splits[0]: 0}), "must be numbers above 0"),
        (lambda: mix({splits[0]: float("nan")}), "must be numbers above 0"),
        (lambda: mixed.select([0]), "a mix cannot be divided"),
        (lambda: load(mixed, weights="balanced"), "a mix has neither weights nor num_repeats"),
        (lambda: load(mixed, order="blocks"), "order='blocks' does not apply"),
        (
            lambda: load(mixed, train=False),
            "a mix draws samples .+, or concatenate the splits",
        ),
        (mixed.remote_shards, "has shards in several places"),
    ]
    for call, told in wrong:
        with pytest.raises(UsageError, match=told):
            call()


def test_jpegs_and_raw_pixels_are_not_joined(splits: list[Split], tmp_path: Path) -> None:
    from shards.format.ppm import ppm

    raw = write_split(tmp_path, [ppm(photo(16, 16))] * 2, short_side=16, classes=CLASSES, encoding="raw")
    with pytest.raises(UsageError, match="JPEGs and raw pixels do not mix"):
        concatenate([splits[0], raw])


class Fake:
    """Shards that note what they are asked for."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self.name, self.calls = name, calls

    def __getattr__(self, method: str) -> Any:
        return lambda *words: self.calls.append((self.name, method, *words))


def test_each_shard_is_asked_of_its_own_part() -> None:
    calls: list[Any] = []
    shards = JoinedShards([Fake("a", calls), Fake("b", calls)], [3, 2])
    shards.preadv(4, [], 7, None)
    shards.announce([1, 4, 0, 3])
    shards.stop()
    assert calls == [
        ("b", "preadv", 1, [], 7, None),
        ("a", "announce", [1, 0]),
        ("b", "announce", [1, 0]),
        ("a", "stop"),
        ("b", "stop"),
    ]
