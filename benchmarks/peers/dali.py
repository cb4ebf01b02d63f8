"""DALI's own webdataset reader and operators over the shards: benchmarks/peers/plain_dali.py."""

from benchmarks.peers import plain_dali
from benchmarks.processes.job import Job, Peer


def peer(job: Job) -> Peer:
    raw = job.opened().manifest.settings.encoding == "raw"
    return Peer(
        lambda: plain_dali.batches(job.opened(), job.recipe, job.threads),
        {
            "prefetch_queue_depth": plain_dali.PREFETCH,
            "initial_fill": plain_dali.SHUFFLE_BUFFER,
            "dct": "none (its decoder reads PPM files)" if raw else "accurate",
            "resize": "triangular, antialiased",
        },
        depth=plain_dali.PREFETCH,
    )
