"""Where torchrun's ranks meet: in a part of its store that no ranks before them have used.

torchrun keeps one store for as long as it lives and starts ranks anew beside it, when one of them has died or a node
has come or gone. torch then writes its keys where the dead ranks' keys lie: a rank reads the address of a dead one and
hangs (pytorch/pytorch#135712; seen with torch 2.14.1, on one node too). torchrun's count of restarts does not tell the
starts apart: TORCHELASTIC_RESTART_COUNT stays the same when nodes come or go, and differs between nodes when a rank
dies.
"""

import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store  # torch.distributed has them, but not their types

from shards.common.errors import ShardfeedError

PATIENCE = timedelta(minutes=10)
PAUSE_S = 0.02


def rendezvous(store: Store, rank: int, size: int, patience: timedelta = PATIENCE) -> Store:
    """A part of `store` for these `size` ranks alone, whatever earlier ranks left in it. All ranks call this.

    Every rank but rank 0 writes a new name and waits for an answer to that name. Rank 0 answers every name that it
    finds until each rank has confirmed. So an answer to a name that a dead rank left is read by nobody.

    Raises ShardfeedError if not all have come after `patience`.
    """
    if rank:
        name = uuid.uuid4().hex
        store.set(f"here/{rank}", name)
        try:
            store.wait([f"called/{name}"], patience)
        except RuntimeError as error:
            raise ShardfeedError(f"rank {rank} waited {patience} for rank 0, which did not come") from error
        prefix = store.get(f"called/{name}").decode()
        store.set(f"{prefix}/confirmed/{rank}", "")
        return PrefixStore(prefix, store)

    prefix, until = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    missing = set(range(1, size))
    while True:
        for other in missing:
            if store.check([f"here/{other}"]):
                store.set(f"called/{store.get(f'here/{other}').decode()}", prefix)
        missing = {other for other in missing if not store.check([f"{prefix}/confirmed/{other}"])}
        if not missing:
            return PrefixStore(prefix, store)
        if time.monotonic() > until:
            raise ShardfeedError(f"rank 0 waited {patience} for ranks that did not come: {sorted(missing)[:8]}")
        time.sleep(PAUSE_S)
