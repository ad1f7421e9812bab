"""Fill the bubble: what idles once heads are placed is spent on larger budgets for those heads.

Max-min in the spirit of S-HPLB (arXiv 2603.10353, section 3.2), with the seconds of each device in
place of a total: level filling with progressive freezing (Bertsekas and Gallager, Data Networks,
section 6.5.2). Devices that share divided heads, or groups whose charge grows with their budgets,
rise together; the others each on their own. The makespan stays what it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from profiles.cost.work import Workload, budget_pieces
from solver.budgets.curves import Floats, Ints, RecoveryCurves
from solver.budgets.levels import Mask, highest_fitting
from solver.budgets.recovery import least_pieces

Seconds = Callable[[Ints], Floats]

SAFETY = 1e-12
"""Share of a device's load that stays idle, for the rounding of sums."""
BISECTIONS = 24
"""Leaves 1e-7 of recovery open, for the single steps to settle."""
STEPS = 8
"""Single steps between levels: so many heads seldom fit where a common level does not."""


def fill_bubble(
    tokens: Ints,
    curves: RecoveryCurves,
    workload: Workload,
    shares: Floats,
    room_s: Floats,
    head_seconds: Seconds,
    group_seconds: Seconds,
) -> Ints:
    """Tokens [layers, heads], in whole pieces and nowhere fewer, of larger budgets.

    The least recovered heads are raised first, as far as every device with a part of them has room.
    tokens [layers, heads]; shares [layers, heads, devices] of each head's work; room_s
    [layers, devices] beside the load. `head_seconds` and `group_seconds` cost budgets [layers,
    heads] in tokens as [layers, heads, devices] and [layers, kv_heads, devices].
    """
    before = budget_pieces(np.asarray(tokens, dtype=np.float64), workload)
    devices = _Devices.at(before, workload, shares, room_s, head_seconds, group_seconds)
    pieces, earlier = before, np.zeros_like(before)
    while (pieces != earlier).any():
        most = _most_alone(curves, devices, pieces)
        joined = devices.joined(most > pieces)
        earlier, pieces = pieces, _level(curves, devices, pieces, most, joined)
        for _ in range(STEPS):
            pieces = _raise_lowest(curves, devices, pieces, joined)
    kept = (devices.added_s(pieces) <= np.maximum(room_s, 0)).all(axis=1, keepdims=True)
    pieces = np.where(kept, pieces, before)
    return devices.tokens(pieces)


@dataclass(frozen=True, eq=False)
class _Devices:
    """What the devices hold, and what more they may take.

    touched [layers, heads, devices]: where a head's growth costs anything.
    group_varies [layers, kv_heads, devices]: charges that grow with the budgets.
    """

    workload: Workload
    shares: Floats
    room_s: Floats
    head_seconds: Seconds
    group_seconds: Seconds
    heads_before_s: Floats
    groups_before_s: Floats
    group_varies: Mask
    touched: Mask

    @classmethod
    def at(
        cls,
        pieces: Ints,
        workload: Workload,
        shares: Floats,
        room_s: Floats,
        head_seconds: Seconds,
        group_seconds: Seconds,
    ) -> "_Devices":
        tokens = np.minimum(pieces * workload.piece_tokens, workload.context_tokens)
        heads_s, groups_s = head_seconds(tokens), group_seconds(tokens)
        layers, heads, count = shares.shape
        by_group = shares.reshape(layers, groups_s.shape[1], -1, count)
        present = (by_group > 0).any(axis=2)
        whole = group_seconds(np.full_like(tokens, workload.context_tokens))
        varies = present & (whole != groups_s)
        load_s = (shares * heads_s).sum(axis=1) + np.where(present, groups_s, 0).sum(axis=1)
        return cls(
            workload=workload,
            shares=shares,
            room_s=np.maximum(room_s - SAFETY * (room_s + load_s), 0),
            head_seconds=head_seconds,
            group_seconds=group_seconds,
            heads_before_s=heads_s,
            groups_before_s=groups_s,
            group_varies=varies,
            touched=(shares > 0) | np.repeat(varies, heads // groups_s.shape[1], axis=1),
        )

    def tokens(self, pieces: Ints) -> Ints:
        return np.minimum(pieces * self.workload.piece_tokens, self.workload.context_tokens)

    def added_s(self, pieces: Ints) -> Floats:
        """Seconds that budgets add to every device, `[layers, devices]`."""
        tokens = self.tokens(pieces)
        heads = (self.shares * (self.head_seconds(tokens) - self.heads_before_s)).sum(axis=1)
        if not self.group_varies.any():
            return np.asarray(heads)
        groups = np.where(self.group_varies, self.group_seconds(tokens) - self.groups_before_s, 0)
        return np.asarray(heads + groups.sum(axis=1))

    def alone(self, pieces: Ints, better: Ints) -> Mask:
        """Whether each head has room to grow to `better` if no other grows, `[layers, heads]`."""
        tokens, grown = self.tokens(pieces), self.tokens(better)
        extra = self.shares * (self.head_seconds(grown) - self.head_seconds(tokens))
        if self.group_varies.any():
            charged = self.group_seconds(tokens)
            size = pieces.shape[1] // charged.shape[1]
            for member in range(size):
                one = np.arange(pieces.shape[1]) % size == member
                charge = self.group_seconds(np.where(one, grown, tokens)) - charged
                extra[:, member::size] += np.where(self.group_varies, charge, 0)
        left_s = self.room_s - self.added_s(pieces)
        return np.asarray(((extra <= left_s[:, None]) | ~self.touched).all(axis=-1))

    def joined(self, open_: Mask) -> "_Joined":
        """Devices joined by the open heads that touch more than one of them."""
        layers, _, count = self.shares.shape
        first = self.touched.argmax(axis=-1) + count * np.arange(layers)[:, None]
        layer, head, device = np.nonzero(self.touched & open_[..., None])
        ends = (first[layer, head], layer * count + device)
        graph = coo_array((np.ones(len(layer)), ends), shape=(layers * count, layers * count))
        number, label = connected_components(graph, directed=False)
        return _Joined(number, label[first], label.reshape(layers, count))


@dataclass(frozen=True, eq=False)
class _Joined:
    """Sets of devices that rise together: the set of every head and of every device."""

    number: int
    of_head: NDArray[np.int32]
    of_device: NDArray[np.int32]


def _most_alone(curves: RecoveryCurves, devices: _Devices, pieces: Ints) -> Ints:
    """What each head could have if no other grew, `[layers, heads]`; of a plateau, its start."""
    fits, above = pieces, np.full_like(pieces, curves.context_pieces + 1)
    while (above - fits > 1).any():
        middle = (fits + above) // 2
        fitting = devices.alone(pieces, middle)
        fits, above = np.where(fitting, middle, fits), np.where(fitting, above, middle)
    return np.maximum(pieces, least_pieces(curves, curves.at(fits)))


def _level(
    curves: RecoveryCurves, devices: _Devices, pieces: Ints, most: Ints, joined: _Joined
) -> Ints:
    """Raise the heads of every set of devices to the highest common recovery that fits.

    A head that even alone cannot reach it gets its `most` [layers, heads].
    """

    def at_level(level: Floats) -> Ints:
        return np.clip(least_pieces(curves, level[joined.of_head]), pieces, most)

    def fits(level: Floats) -> Mask:
        fitting = np.ones(joined.number, dtype=bool)
        fitting[joined.of_device[devices.added_s(at_level(level)) > devices.room_s]] = False
        return fitting

    return at_level(highest_fitting(fits, joined.number, BISECTIONS))


def _raise_lowest(curves: RecoveryCurves, devices: _Devices, pieces: Ints, joined: _Joined) -> Ints:
    """In every set of devices, raise the least recovered of the heads that can be by one step."""
    recovery = curves.at(pieces)
    # A plateau is crossed in one step: pieces that recover nothing more are never given alone.
    better = np.maximum(pieces, least_pieces(curves, np.nextafter(recovery, 2.0)))
    layer, head = np.nonzero((recovery < 1) & devices.alone(pieces, better))
    lowest_first = np.lexsort((recovery[layer, head], joined.of_head[layer, head]))
    layer, head = layer[lowest_first], head[lowest_first]
    _, first = np.unique(joined.of_head[layer, head], return_index=True)
    raised = pieces.copy()
    raised[layer[first], head[first]] = better[layer[first], head[first]]
    return raised
