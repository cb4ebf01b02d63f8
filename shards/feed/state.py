"""A loader's state: a cursor, and what must be the same for that cursor to mean the same samples."""

from typing import Any

from shards.common.arguments import shown, whole_number
from shards.common.errors import UsageError
from shards.dataset import Split
from shards.feed.plan import SamplingConfig
from shards.sampling.batch import Cursor
from shards.sampling.order import ORDERS

# The fields that must match for a position to mean the same images, in words.
GUARDS = {
    "samples": "a split of another size",
    "subset": "another part of the split, or of other splits that were joined",
    "labels": "other samples, or of the same in another order, by their labels",
    "seed": "another seed",
    "order_seed": "another order_seed",
    "order": "another order",
    "window": "another window",
    "draw": "other weights, num_samples or num_repeats",
}


def state_of(split: Split, sampling: SamplingConfig, cursor: Cursor) -> dict[str, int]:
    """The state of a loader of `split` at `cursor`."""
    # After the last batch, which may not be full, a cursor lies behind the end of the epoch.
    position = min(cursor.position, sampling.draw.length(len(split)))
    return {
        "seed": sampling.seed,
        "order_seed": sampling.order_seed,
        "samples": len(split),
        "subset": split.part_identity,
        "labels": split.labels_identity,
        "order": ORDERS.index(sampling.order),
        "draw": sampling.draw.identity,
        "window": sampling.block_shards if sampling.order == "blocks" else 0,
        "epoch": cursor.epoch,
        "position": position,
    }


def cursor_of(state: Any, own: dict[str, int], samples: int) -> Cursor:
    """The cursor in `state`, for a loader whose own state is `own`, and of which an epoch holds so many `samples`.

    Raises UsageError for what is no state, for that of a split of another size, other labels, another part, seed or
    order, and for a position beyond the epoch.
    """
    if not isinstance(state, dict):
        raise UsageError(f"not the state of a loader: {shown(state)} is not what state_dict() returns")
    # The position of earlier states may lie up to a global batch beyond the epoch.
    furthest = samples if "labels" in state else None
    if "seed" in state:  # they have one seed for both, and name neither labels, nor a part of a split, nor weights
        state = {"order_seed": state["seed"], "subset": own["subset"], "labels": own["labels"], "draw": 0, **state}
    missing = own.keys() - state.keys()
    if missing:
        raise UsageError(f"not the state of a loader: it has no {', '.join(sorted(missing))}")
    for name, what in GUARDS.items():
        if (there := whole_number(name, state[name])) != own[name]:
            raise UsageError(f"the loader's state is of {what}: {name} is {there} there and {own[name]} here")
    position = whole_number("the position in the loader's state", state["position"], 0, furthest)
    return Cursor(whole_number("epoch", state["epoch"], 0), position)
