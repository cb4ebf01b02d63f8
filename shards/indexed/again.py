"""When tars of others are to be indexed again, and the command for it, named by where tars and index lie now."""

import shlex
import warnings
from pathlib import Path

from shards.common.errors import ShardfeedWarning
from shards.common.terminal import counted
from shards.format.manifest import Manifest
from shards.indexed.find import in_cache
from shards.indexed.places import changes, lies_alone
from shards.indexed.source import common_directory, names_tars
from shards.remote.cache import cache_home
from shards.remote.urls import is_url


def index_command(root: Path, manifest: Manifest) -> str:
    """`python -m shards index SOURCE`, with --to where it would write elsewhere. `root`: the index, as it was opened.

    The manifest's source may be a path relative to a directory of long ago, and the tars may have been moved since.
    """
    places = [shard.place for info in manifest.splits.values() for shard in info.shards]
    first = next(iter(places), "")
    if not lies_alone(first):
        directory = root.parent if first.startswith("../") else root
        source = _in(str(directory), manifest.source)
        to = names_tars(manifest.source) and directory == root
    else:
        source = manifest.source
        if not (is_url(source) or source.startswith("/")):
            source = _in(common_directory([place for place in places if lies_alone(place)]), source)
        to = root != in_cache(source, cache_home())
    if to:
        return f"python -m shards index {shlex.quote(source)} --to {shlex.quote(str(root))}"
    return f"python -m shards index {shlex.quote(source)}"


def warn_of_changes(root: Path, manifest: Manifest) -> None:
    """Warns, in one line, of tars on this machine that have changed since they were indexed."""
    changed = changes(root, manifest)
    if changed:
        shards = sum(len(info.shards) for info in manifest.splits.values())
        have = "has" if len(changed) == 1 else "have"
        warnings.warn(
            f"{counted(len(changed), 'tar')} of {shards:,} {have} changed since the index was made: {changed[0]}"
            f"{', ...' if len(changed) > 1 else ''}; run `{index_command(root, manifest)}` again",
            ShardfeedWarning,
            stacklevel=4,
        )


def _in(directory: str, source: str) -> str:
    """A directory of tars, or, where `source` is a pattern, the pattern in that directory."""
    if not names_tars(source) or "::" in source:
        return source if "::" in source else directory
    before, brace, behind = source.partition("{")
    return f"{directory}/{before.rpartition('/')[2]}{brace}{behind}"
