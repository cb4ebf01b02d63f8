"""What OUT holds when a job starts: nothing, an unfinished job, a finished data set, or files of something else."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from preprocess.job.plan import Plan
from preprocess.job.task import WORK, plan_path
from shards.common.atomic import sync_directory
from shards.common.errors import ShardfeedError, UsageError
from shards.format.layout import MANIFEST
from shards.format.manifest import Manifest
from shards.format.mend import files_in_words, how_to_mend, wrong_files
from shards.remote.object_store import ObjectStore


def check_out(out: Path) -> None:
    """Raises UsageError for a directory of other files. Called before the source is opened, which may be slow."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: give a directory for the shards")
    if not out.exists() or (out / MANIFEST).exists() or plan_path(out).exists():
        return
    refuse_other_files(out, [path.name for path in out.iterdir()])


def refuse_other_files(out: Path | ObjectStore, names: Collection[str]) -> None:
    """Raises UsageError where `names`, the files in OUT, are not those of this program."""
    # A job that was killed while it wrote its plan leaves a work directory without one.
    foreign = sorted(name for name in names if name != WORK)
    if foreign and (isinstance(out, Path) or WORK not in names):
        raise UsageError(
            f"{out} holds other files ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}) "
            "and no data set of this program: give another directory, or empty this one"
        )


def is_finished(out: Path) -> bool:
    """Whether OUT holds a manifest and no work directory, so that there is nothing to do and nothing to lock."""
    return (out / MANIFEST).exists() and not (out / WORK).exists()


def check_complete(
    out: Path | ObjectStore, manifest: Manifest, plan: Plan, source: str, sizes: Callable[[str], Mapping[str, int]]
) -> None:
    """Raises UsageError where `plan` would make a different data set, ShardfeedError where files of this one are wrong.

    Only names and lengths of its files are compared: `sizes` as for `wrong_files`. `source`: as the user gave it.
    """
    check_same_data_set(out, manifest, plan)
    if wrong := wrong_files(manifest, sizes):
        raise ShardfeedError(
            f"{out} was finished, but since then {files_in_words(wrong)} went missing or changed their length: "
            f"{how_to_mend(str(out), source)}"
        )


def check_same_data_set(out: Path | ObjectStore, manifest: Manifest, plan: Plan) -> None:
    """Raises UsageError where `plan` would make a data set different from the manifest's."""
    if differences := Plan.of_manifest(manifest, plan.libraries, plan.program_version).differences(plan):
        raise UsageError(f"{out} holds a different data set ({'; '.join(differences)}): give another directory")


def resume_or_write_plan(out: Path, plan: Plan) -> Plan:
    """Writes the plan unless OUT holds one; returns the plan in OUT. Raises UsageError where the two differ."""
    if not plan_path(out).exists():
        plan.write(plan_path(out))
        sync_directory(out)
    return read_plan(out, plan)


def read_plan(out: Path, plan: Plan, place: str | None = None) -> Plan:
    """The plan of the unfinished job in `out`. Raises UsageError where `plan` would make different bytes.

    `place`: how messages name `out`, where it is a copy.
    """
    found = Plan.read(plan_path(out))
    if differences := found.differences(plan):
        raise UsageError(
            f"{place or out} holds an unfinished data set made differently ({'; '.join(differences)}): "
            "repeat the options it was started with to go on, or give another directory"
        )
    return found
