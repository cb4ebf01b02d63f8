"""The naive path: benchmarks/peers/naive.py, over the Hugging Face data set that the shards were made from."""

from benchmarks.peers import naive
from benchmarks.processes.job import Job, Peer
from shards.common.errors import UsageError


def peer(job: Job) -> Peer:
    """Raises UsageError if the shards are not of that data set."""
    rows = open_rows(job)
    return Peer(
        lambda: naive.batches(rows, job.recipe, job.threads),
        {"reads": "originals", "prefetch_factor": naive.PREFETCH, "dct": "accurate"},
        depth=naive.PREFETCH * job.threads,
        stride=max(1, job.threads),
    )


def open_rows(job: Job) -> naive.Rows:
    """The split of the source. Raises UsageError if the shards are not of that data set."""
    from preprocess.sources import hf_dataset

    split = job.opened()
    rows = hf_dataset(job.source, job.split, job.image_column, job.label_column)
    names = tuple(rows.features["label"].names)
    if names != split.class_names:
        raise UsageError(
            f"{job.data} was made from another data set than {job.source}: "
            f"{len(split.class_names)} classes ({split.class_names[0]}, ...) and {len(names)} ({names[0]}, ...)"
        )
    taken = len(split) + split.info.rejects
    if len(rows) != taken:
        raise UsageError(
            f"{job.data} was made from another data set than {job.source}: "
            f"{taken} and {len(rows)} images in {job.split}"
        )
    return rows  # type: ignore[no-any-return]
