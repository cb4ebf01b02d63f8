"""Several views of each sample as operators of DALI's graph: cuts and resizes what shards/sampling/views.py planned.

Colours are not the graph's: DALI turns the hue in another space than torchvision, and eight conditionals for each of
ten views would make hundreds of operators. shards/decode/colour_tensors.py changes them afterwards.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from nvidia.dali import fn, types

from shards.sampling.views import View

# The graph's inputs for all views of a sample, int32: the fields of `PlannedViews` for one sample.
INPUTS = {"view_anchor": 2, "view_shape": 2, "view_mirror": 1}
"""Their names, and how many dimensions each has."""

FILTERS = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}


def cut_views(views: Sequence[View], regions: Any, fed: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Each view of `regions`, nodes of uint8 (height, width, 3): nodes of uint8 (size, size, 3), and whether to mirror.

    `fed`: nodes of `INPUTS`, on the CPU.
    """
    for number, view in enumerate(views):
        anchor, shape = fed["view_anchor"][number], fed["view_shape"][number]
        # The window alone: the filter of the resize must not see what lies beside it.
        window = fn.slice(regions, anchor, shape, axis_names="HW")
        filter_ = FILTERS[view.interpolation]
        resized = fn.resize(window, size=[view.size, view.size], interp_type=filter_, antialias=True)
        yield resized, fed["view_mirror"][number]
