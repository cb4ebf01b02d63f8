"""Where the ranks of torchrun meet: in a part of its store that no ranks before them have used.

torchrun keeps one store for as long as it lives and starts ranks anew beside it, when one of them has died or a node
has come or gone. torch puts its keys where those of the dead lie: a rank reads the address of one that is gone, and
hangs (pytorch/pytorch#135712; seen with torch 2.14.1, on one node too). What torchrun says of restarts does not help:
TORCHELASTIC_RESTART_COUNT stays the same when the nodes change, and differs between them when a rank dies.
"""

import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store  # torch.distributed has them, but not their types

from shards.common.errors import ShardfeedError

PATIENCE = timedelta(minutes=10)
PAUSE_S = 0.02


def meet(store: Store, rank: int, size: int, patience: timedelta = PATIENCE) -> Store:
    """A part of `store` that `size` ranks, which all call this, have to themselves, whatever is left in it.

    Every rank but the main one leaves a new name, and waits for an answer to that name; the main one answers to every
    name that it finds until each rank has confirmed. So a name that a dead rank left gets an answer nobody reads.

    Raises ShardfeedError if not all have come after `patience`.
    """
    if rank:
        name = uuid.uuid4().hex
        store.set(f"here/{rank}", name)
        try:
            store.wait([f"called/{name}"], patience)
        except RuntimeError as error:
            raise ShardfeedError(f"rank {rank} waited {patience} for rank 0, which did not come") from error
        place = store.get(f"called/{name}").decode()
        store.set(f"{place}/confirmed/{rank}", "")
        return PrefixStore(place, store)

    place, until = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    missing = set(range(1, size))
    while True:
        for other in missing:
            if store.check([f"here/{other}"]):
                store.set(f"called/{store.get(f'here/{other}').decode()}", place)
        missing = {other for other in missing if not store.check([f"{place}/confirmed/{other}"])}
        if not missing:
            return PrefixStore(place, store)
        if time.monotonic() > until:
            raise ShardfeedError(f"rank 0 waited {patience} for ranks that did not come: {sorted(missing)[:8]}")
        time.sleep(PAUSE_S)
