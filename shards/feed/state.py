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
    "seed": "another seed",
    "order_seed": "another order_seed",
    "order": "another order",
    "window": "another window",
    "draw": "other weights, num_samples or num_repeats",
}


def state_of(split: Split, sampling: SamplingConfig, cursor: Cursor) -> dict[str, int]:
    """The state of a loader of `split` at `cursor`."""
    return {
        "seed": sampling.seed,
        "order_seed": sampling.order_seed,
        "samples": len(split),
        "subset": split.part_identity,
        "order": ORDERS.index(sampling.order),
        "draw": sampling.draw.identity,
        "window": sampling.block_shards if sampling.order == "blocks" else 0,
        "epoch": cursor.epoch,
        "position": cursor.position,
    }


def cursor_of(state: Any, own: dict[str, int]) -> Cursor:
    """The cursor in `state`, for a loader whose own state is `own`.

    Raises UsageError for what is no state, and for that of a split of another size, another part, seed or order.
    """
    if not isinstance(state, dict):
        raise UsageError(f"not the state of a loader: {shown(state)} is not what state_dict() returns")
    if "seed" in state:  # earlier states have one seed for both, and name neither a part of a split nor weights
        state = {"order_seed": state["seed"], "subset": own["subset"], "draw": 0, **state}
    missing = own.keys() - state.keys()
    if missing:
        raise UsageError(f"not the state of a loader: it has no {', '.join(sorted(missing))}")
    for name, what in GUARDS.items():
        if (there := whole_number(name, state[name])) != own[name]:
            raise UsageError(f"the loader's state is of {what}: {name} is {there} there and {own[name]} here")
    return Cursor(whole_number("epoch", state["epoch"], 0), whole_number("position", state["position"], 0))
