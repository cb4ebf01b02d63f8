"""Samples that cannot be used: named in an error, or replaced by the next whole sample of the split.

A sample is damaged where its shard cannot be read or fetched, its CRC-32 is wrong, or its image cannot be decoded.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from shards.common.errors import ShardfeedError, ShardfeedWarning
from shards.common.terminal import advice
from shards.dataset import Split
from shards.decode.graph import GraphConfig, GraphDecoder
from shards.feed.plan import Planner
from shards.feed.read import DAMAGED, Reading, SampleReader, Trouble
from shards.format.verify_image import decoding_error
from shards.sampling.batch import PlannedBatch

# Of a remote split, the part of its shards that on_error goes on without, and one shard in any case. Where more cannot
# be fetched, the store is gone or the data set was not uploaded whole.
LOST_SHARE = 0.1
# Damaged samples and lost shards that are named.
NAMED = 10
VERIFY = "`python -m shards verify`"


@dataclass(frozen=True)
class ReadBatch:
    """A batch that was read. `replaced`: the places in the batch whose damaged sample was replaced."""

    batch: PlannedBatch
    data: Any
    replaced: frozenset[int] = frozenset()


class DamagedSamples:
    """Deals with the damaged samples of a split. `skip`: replace them; otherwise the first one is an error.

    What is replaced is named once in a warning, `NAMED` samples and shards at most.
    """

    def __init__(self, split: Split, planner: Planner, reader: SampleReader, *, skip: bool) -> None:
        self._split = split
        self._planner = planner
        self._reader = reader
        self._skip = skip
        self._named: set[tuple[str, int]] = set()  # "sample" or "shard" and its number
        self._lost: set[tuple[int, int]] = set()  # an epoch and a shard

    def wait_and_repair(self, reading: Reading) -> ReadBatch:
        """Waits for the bytes of a batch. Raises ShardfeedError for a damaged sample, unless they are replaced."""
        return self._replaced(ReadBatch(reading.batch, reading.data), reading.wait())

    def without_undecodable(
        self, error: Exception, inside: Sequence[ReadBatch], config: GraphConfig
    ) -> list[ReadBatch]:
        """After the decoder failed with `error`: the batches `inside` it, with undecodable samples replaced.

        Raises ShardfeedError for the first undecodable sample unless they are replaced, and where there is none.
        """
        troubles = [self._undecodable(whole, config) for whole in inside]
        if not any(troubles):
            raise ShardfeedError(f"DALI failed on a batch of {self._split.name}: {said_by_dali(error)}") from error
        return [self._replaced(whole, bad) for whole, bad in zip(inside, troubles, strict=True)]

    def _replaced(self, whole: ReadBatch, troubles: list[Trouble]) -> ReadBatch:
        if not troubles:
            return whole
        batch, drawn = whole.batch, whole.batch.drawn.copy()
        replaced = whole.replaced | {place for place, _ in troubles}
        for _ in range(len(self._split)):
            for place, trouble in troubles:
                if not self._skip:
                    raise _error(self._split, self._sample(drawn[place]), trouble)
                self._name(batch.cursor.epoch, self._sample(drawn[place]), trouble)
            places = [place for place, _ in troubles]
            drawn[places] = [self._next(self._sample(drawn[place]), trouble) for place, trouble in troubles]
            others = self._planner.batch(batch.cursor, drawn[places])
            again = self._reader.start_in_place(others, whole.data, places).wait()
            troubles = [(places[i], trouble) for i, trouble in again]
            if not troubles:
                return ReadBatch(self._planner.batch(batch.cursor, drawn), whole.data, replaced)
        raise ShardfeedError(
            f"no sample of {self._split.name} can be read: copy it again, or {self._split.how_to_mend()}"
        )

    def _sample(self, drawn: np.int64) -> int:
        return int(drawn) % len(self._split)

    def _next(self, sample: int, trouble: str | ShardfeedError) -> int:
        """The sample to take in place of a damaged one: the next one, past a shard that cannot be fetched."""
        shard = self._split.index.shard
        after = np.searchsorted(shard, shard[sample], "right") if isinstance(trouble, ShardfeedError) else sample + 1
        return int(after) % len(self._split)

    def _name(self, epoch: int, sample: int, trouble: str | ShardfeedError) -> None:
        """Warns of a damaged sample. Raises ShardfeedError where so many shards are lost that the store must be."""
        shard = int(self._split.index.shard[sample])
        if isinstance(trouble, ShardfeedError):
            self._lost = {each for each in self._lost if each[0] == epoch} | {(epoch, shard)}
            lost, shards = len(self._lost), len(self._split.info.shards)
            if lost > max(1, LOST_SHARE * shards):
                raise ShardfeedError(
                    f"{lost} of the {shards} shards of {self._split.name} cannot be fetched, too many "
                    f"to go on without them: {trouble}"
                )
            what = ("shard", shard)
        else:
            what = ("sample", sample)
        if what in self._named or len(self._named) == NAMED:
            return
        self._named.add(what)
        said = trouble if isinstance(trouble, ShardfeedError) else describe(self._split, sample, trouble)
        last = f" (no more are named: {VERIFY} names all)" if len(self._named) == NAMED else ""
        warnings.warn(f"skipped: {said}{last}", ShardfeedWarning, stacklevel=2)

    def _undecodable(self, whole: ReadBatch, config: GraphConfig) -> list[Trouble]:
        """The samples that the graph cannot decode, each tried alone; an error of the graph does not name them."""
        if config.decode == "raw":
            return []
        index, batch, alone = self._split.index, whole.batch, dataclasses.replace(config, batch_size=1)
        troubles: list[Trouble] = []
        decoder = GraphDecoder(alone)
        for place, data in enumerate(whole.data):
            try:
                decoder.push(self._planner.batch(batch.cursor, batch.drawn[place : place + 1]), [data])
                decoder.pop()
            except RuntimeError as error:
                known = self._split.info.checksums
                right = not known or crc32(data.data) == int(index.crc32[batch.ids[place]])
                troubles.append((place, _undecodable(data.tobytes(), error, known) if right else DAMAGED))
                decoder.close()
                decoder = GraphDecoder(alone)
        decoder.close()
        return troubles


def _undecodable(data: bytes, error: Exception, checked: bool) -> str:
    """What is wrong with an image that has the right checksum, or (not `checked`) none.

    libjpeg-turbo's reason comes first: it says what is wrong in the picture, DALI mostly a number.
    """
    reason = decoding_error(data) or "libjpeg-turbo reads it"
    stored = ", and its checksum is right, so it was stored like this" if checked else ""
    return f"cannot be decoded{stored} ({reason}; DALI: {said_by_dali(error)})"


def said_by_dali(error: Exception) -> str:
    """The reason in an error of a DALI graph, without the places in our code and the state of the graph around it."""
    said = str(error).rpartition("encountered:")[2].replace("Current pipeline object is no longer valid.", "")
    return " ".join(said.split()).rstrip(" :")


def describe(split: Split, sample: int, trouble: str) -> str:
    """One line that names a sample, its shard and its place there."""
    index = split.index
    return (
        f"sample {split.keys()[sample]} in {split.shard_place(int(index.shard[sample]))} at byte "
        f"{int(index.offset[sample]):,} {trouble}"
    )


def _error(split: Split, sample: int, trouble: str | ShardfeedError) -> ShardfeedError:
    """Why the iteration ends at a damaged sample."""
    if isinstance(trouble, ShardfeedError):
        return trouble
    skip = advice('Loader(on_error="skip")', "`python -m train --on-error skip`")
    return ShardfeedError(
        f"{describe(split, sample, trouble)}: copy the shard again, or {split.how_to_mend()}; "
        f"to go on without the sample, {skip}"
    )
