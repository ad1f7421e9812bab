"""Items cut where devices are full at the mean load, as if copies were free (McNaughton 1959).

One pass over arrays, whatever the layer's size: what there is of a divided placement while the
wrap-around that sees charges has not had its turn. Groups stay together; each item brings its part
of its group's charge, and faster devices take more.
"""

import numpy as np

from solver.problem import LayerProblem
from solver.shares import Shares


def even_cut(layer: LayerProblem) -> Shares | None:
    """Shares on at most `max_copies` devices an item; None where that is one."""
    copies = layer.max_copies or layer.devices
    if copies == 1:
        return None
    _, first = np.unique(layer.type_of, return_index=True)
    charge_s = np.tensordot(layer.weights, layer.group_s[..., first], 1)
    seconds = np.tensordot(layer.weights, layer.item_s[..., first], 1)
    seconds += (charge_s / np.bincount(layer.group_of, minlength=layer.groups)[:, None])[
        layer.group_of
    ]
    order = np.argsort(layer.group_of, kind="stable")
    work = seconds.mean(axis=1)[order]
    speed = (work.sum() / seconds.sum(axis=0))[np.searchsorted(layer.type_of[first], layer.type_of)]
    level = work.sum() / speed.sum()
    if copies < layer.devices:
        # As long as this, an item ends on the last of its copies wherever it begins.
        level = max(level, work.max() / ((copies - 1) * speed.min()))
    item_ends, device_ends = np.cumsum(work), np.cumsum(level * speed)
    ends = np.union1d(item_ends, device_ends[device_ends < item_ends[-1]])
    lengths = np.diff(ends, prepend=0.0)
    middles = ends - lengths / 2
    item = np.searchsorted(item_ends, middles)
    device = np.minimum(np.searchsorted(device_ends, middles), layer.devices - 1)
    return Shares.cleaned(order[item], device, lengths / work[item], layer.items, layer.devices)
