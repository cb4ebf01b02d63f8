"""The end of a job: writes the index and the rejects of each split, then the manifest."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from preprocess.job.plan import Plan
from preprocess.job.task import PLAN, WORK, Rejected, ShardResult, index_path
from preprocess.sources.source import Source
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError
from shards.format.index import Index
from shards.format.layout import INDEX, REJECTS, dali_index_name, split_dir
from shards.format.manifest import FORMAT_VERSION, Manifest, SplitInfo, index_info


def check_files(results: Sequence[ShardResult], sizes: Callable[[str], Mapping[str, int]]) -> None:
    """Raises ShardfeedError where files of finished shards have disappeared, or changed their length, since.

    `sizes`: the length of each file in a directory of OUT, by its name.
    """
    there = {name: sizes(name) for name in (WORK, *(result.split for result in results))}
    lost = [
        result.info.name
        for result in results
        if there[result.split].get(result.info.name) != result.info.bytes
        or not there[result.split].get(dali_index_name(result.info.name))
        or not there[WORK].get(index_path(Path(), result.split, result.number).name)
    ]
    if lost:
        # Without its plan the rest of a job is taken for files of something else.
        how = "Start" if there[WORK].get(PLAN) else f"The plan in {WORK} too: remove what is left, and start"
        raise ShardfeedError(
            f"files of {len(lost)} of {len(results)} finished shards have disappeared meanwhile: {', '.join(lost[:10])}"
            f"{', ...' if len(lost) > 10 else ''}. {how} the same command again to make them"
        )


def finish(out: Path, plan: Plan, source: Source, results: Sequence[ShardResult]) -> Manifest:
    """Writes each split's index and rejects, then the manifest; removes the work directory.

    `results`: all shards of the plan, in its order. `check_files` comes first.
    """
    splits: dict[str, SplitInfo] = {}
    columns: dict[str, str] = {}
    for split in plan.splits:
        done = [result for result in results if result.split == split]
        rejects = [entry for result in done for entry in result.rejects]
        parts = [Index.read(index_path(out, split, result.number), keys=True, extra=plan.keep) for result in done]
        index = Index.concatenate(parts)
        index.write(split_dir(out, split) / INDEX)
        columns = {name: str(values.type) for name, values in index.extra.items()}
        write_rejects(out, split, [*rejects, *passed_over(source, split)])
        splits[split] = SplitInfo(
            samples=sum(result.info.samples for result in done),
            rejects=len(rejects),
            shards=tuple(result.info for result in done),
            kinds=dict(sorted(sum((Counter(result.kinds) for result in done), Counter()).items())),
            reasons=dict(sorted(Counter(general(entry.reason) for entry in rejects).items())),
            index=index_info(split_dir(out, split) / INDEX),
        )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        program_version=plan.program_version,
        source=plan.source,
        fingerprint=plan.fingerprint,
        class_names=source.class_names,
        settings=plan.settings,
        splits=splits,
        libraries=plan.libraries,
        columns=columns,
    )
    manifest.write(out)
    # A work directory that stays is removed by the next run.
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest


def rejects_lines(rejects: Sequence[Rejected]) -> bytes:
    """The content of rejects.jsonl: one JSON object a line, rows first, in the order of the source."""
    ordered = sorted(rejects, key=lambda entry: (entry.row is None, entry.row or 0, entry.path))
    lines = [json.dumps(asdict(entry), ensure_ascii=False) for entry in ordered]
    return "".join(f"{line}\n" for line in lines).encode()


def passed_over(source: Source, split: str) -> list[Rejected]:
    """The files of a split that are no rows of it, as entries of rejects.jsonl; the manifest does not count them."""
    return [Rejected(split, None, entry.path, entry.reason) for entry in source.passed_over(split)]


def write_rejects(out: Path, split: str, rejects: Sequence[Rejected]) -> None:
    """Writes rejects.jsonl of one split."""
    with replacing(split_dir(out, split) / REJECTS) as file:
        file.write(rejects_lines(rejects))


def general(reason: str) -> str:
    """A reason without the numbers and names of one image, so that equal reasons can be counted."""
    sizeless = re.sub(r"\d+ x \d+", "W x H", reason)
    countless = re.sub(r"^\d+ ", "N ", sizeless)
    return re.sub(r": '.*'$", "", countless)
