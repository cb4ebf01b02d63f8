"""The beginning of a job: what its plan is, and whether OUT is empty, half-done by the same plan, or finished."""

from collections.abc import Collection
from pathlib import Path

from preprocess.job.plan import Plan
from preprocess.job.task import WORK, plan_path
from preprocess.options import Options
from preprocess.sources.source import Source
from shards.common.atomic import sync_directory
from shards.common.errors import UsageError
from shards.common.versions import version
from shards.format.layout import MANIFEST
from shards.format.manifest import Manifest
from shards.remote.object_store import ObjectStore

# Other versions of these may make other bytes of the same picture.
LIBRARIES = ("pillow", "simplejpeg")
NOT_INSTALLED = "not installed"


def new_plan(source: Source, options: Options) -> Plan:
    """The plan that the options make of a source."""
    return Plan(
        source=source.name,
        fingerprint=source.fingerprint,
        splits={split: source.num_rows(split) for split in source.splits},
        settings=options.settings,
        program_version=version("shardfeed") or NOT_INSTALLED,
        libraries={name: version(name) or NOT_INSTALLED for name in LIBRARIES},
    )


def only_a_manifest(out: Path) -> bool:
    """Whether a data set is finished and nobody has anything left to do in it, so that no lock need be written."""
    return (out / MANIFEST).exists() and not (out / WORK).exists()


def check_out(out: Path) -> None:
    """Refuses (UsageError) a directory of other things. Asked before the source is opened, which may be slow."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: give a directory for the shards")
    if not out.exists() or (out / MANIFEST).exists() or plan_path(out).exists():
        return
    refuse_others(out, [path.name for path in out.iterdir()])


def refuse_others(place: Path | ObjectStore, names: Collection[str]) -> None:
    """Raises UsageError where there are files, `names`, and none is of this program."""
    # A job killed while it wrote its plan leaves a work directory without one.
    foreign = sorted(name for name in names if name != WORK)
    if foreign and (isinstance(place, Path) or WORK not in names):
        raise UsageError(
            f"{place} holds other files ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}) "
            "and no data set of this program: give another directory, or empty this one"
        )


def finished(out: Path, plan: Plan) -> Manifest:
    """The manifest of a finished data set. Raises UsageError where the plan would make another one."""
    manifest = Manifest.read(out)
    check_same(out, manifest, plan)
    return manifest


def check_same(out: Path | ObjectStore, manifest: Manifest, plan: Plan) -> None:
    """Raises UsageError where the plan would make another data set than the manifest's."""
    if differences := Plan.of_manifest(manifest, plan.libraries, plan.program_version).differences(plan):
        raise UsageError(f"{out} holds another data set ({'; '.join(differences)}): give another directory")


def started(out: Path, plan: Plan) -> Plan:
    """The plan of the job in `out`: the one found there, or this one, written down. Raises UsageError."""
    if not plan_path(out).exists():
        plan.write(plan_path(out))
        sync_directory(out)
    return found_plan(out, plan)


def found_plan(out: Path, plan: Plan, place: str | None = None) -> Plan:
    """The plan of the half-done job in `out`. Raises UsageError where `plan` would make other bytes.

    `place`: what to call `out` for the user, where it is not that.
    """
    before = Plan.read(plan_path(out))
    if differences := before.differences(plan):
        raise UsageError(
            f"{place or out} holds a half-done data set made differently ({'; '.join(differences)}): "
            "repeat what it was started with to go on, or give another directory"
        )
    return before
