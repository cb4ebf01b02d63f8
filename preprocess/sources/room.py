"""Room for what the `datasets` library keeps in the home directory: downloads from the hub, and Arrow files."""

from collections.abc import Sequence
from pathlib import Path

from shards.common.space import check_room


def check_hub_room(name: str, urls: Sequence[str]) -> None:
    """Raises ShardfeedError where the disk has too little room for these files of a data set on the hub.

    Each file is downloaded, unless it was, and its images are written a second time, to Arrow files.
    """
    import datasets
    import fsspec
    from huggingface_hub import HfFileSystem, constants, try_to_load_from_cache
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

    download = arrow = 0
    for url in urls:
        files, path = fsspec.core.url_to_fs(url)
        length = int(files.info(path)["size"] or 0)
        arrow += length
        place = files.resolve_path(path) if isinstance(files, HfFileSystem) else None
        if isinstance(place, HfFileSystemResolvedRepositoryPath):
            kept = try_to_load_from_cache(
                place.repo_id, place.path_in_repo, revision=place.revision, repo_type="dataset"
            )
            download += 0 if isinstance(kept, str) else length
    check_room(
        f"{name} from the hub",
        {Path(constants.HF_HUB_CACHE): download, Path(datasets.config.HF_DATASETS_CACHE): arrow},
        "set HF_HOME to a directory on another disk",
    )


def check_arrow_room(name: str, paths: Sequence[Path]) -> None:
    """Raises ShardfeedError where the disk has too little room for the Arrow files of these parquet files."""
    import datasets

    check_room(
        f"the copy of {name} as Arrow files",
        {Path(datasets.config.HF_DATASETS_CACHE): sum(path.stat().st_size for path in paths)},
        "set HF_HOME to a directory on another disk",
    )
