"""Bytes a placement makes devices hold, and bytes a device must fetch to hold something else.

Weights count under tensor parallelism only: a head's query and output projections wherever the
device has a share of it, a KV group's key and value projections wherever the group is present. K/V
belongs to a (group, device) pair: all that its layer reaches, the context or a window, or where the
method evicts, as much as the hungriest of the group's heads on that device may attend to. Where
devices have slots, a group brings all its heads' projections, and a device holds all its slots,
whatever is in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.distance import cdist

from profiles.architecture import Architecture
from profiles.catalogue import device_profile
from profiles.cost.work import Deployment
from solver.request import Retention
from solver.shares import Floats, Ints, Shares


@dataclass(frozen=True, eq=False)
class Footprint:
    """What heads and KV groups take in memory: `batch_size` sequences of `context_tokens`.

    `budgets` [layers, heads] tokens. Results are whole numbers in floats: exact up to 2**53, and
    beyond it still too large rather than wrapped.
    """

    architecture: Architecture
    deployment: Deployment
    budgets: Ints
    context_tokens: int
    batch_size: int
    retention: Retention
    piece_tokens: int
    slots: int | None = None

    @property
    def token_bytes(self) -> int:
        """Keys and values of one token of one KV group, all sequences."""
        return 2 * self.architecture.head_dim * self.architecture.item_bytes * self.batch_size

    @property
    def projection_bytes(self) -> int:
        """A head's two projections, and as much a group's two."""
        if self.deployment == "disaggregated":
            return 0
        shape = self.architecture
        return 2 * shape.hidden_size * shape.head_dim * shape.item_bytes

    @cached_property
    def kept_tokens(self) -> Floats:
        """Tokens of context that are kept for each head, `[layers, kv_heads, group_size]`."""
        shape = self.architecture
        grouped = np.reshape(self.budgets, (-1, shape.kv_heads, shape.group_size))
        reaches = self._reaches[:, None, None]
        if self.retention == "full":
            return np.broadcast_to(reaches, grouped.shape)
        pieces = np.maximum(np.ceil(grouped / self.piece_tokens), 1)
        return np.asarray(np.minimum(pieces * self.piece_tokens, reaches))

    @cached_property
    def _reaches(self) -> Floats:
        """Tokens of context that a layer's rows see, `[layers]`."""
        return np.array(self.architecture.reaches(self.context_tokens), dtype=np.float64)

    @cached_property
    def slot_bytes(self) -> Floats:
        """A slot's keys and values of all its layer reaches, and its projections, `[layers]`."""
        weights = (self.architecture.group_size + 1) * self.projection_bytes
        return np.asarray(self._reaches * self.token_bytes + weights)

    @cached_property
    def group_bytes(self) -> Floats:
        """A whole group on one device, weights and K/V, `[layers, kv_heads]`."""
        weights = (self.architecture.group_size + 1) * self.projection_bytes
        return np.asarray(self.kept_tokens.max(axis=-1) * self.token_bytes + weights)

    def holdings(self, layer: int, shares: Shares) -> Floats:
        """Bytes of K/V by group, and of weights by head and by group, for a layer's heads' shares.

        `[devices, kv_heads + heads + kv_heads]`.
        """
        shape = self.architecture
        group, device = shares.of_groups(self._group_of)
        tokens, heads, groups = (
            np.zeros((shares.devices, count))
            for count in (shape.kv_heads, shape.query_heads, shape.kv_heads)
        )
        tokens[device, group] = self._tokens(layer, shares)
        groups[device, group] = 1
        heads[shares.device, shares.item] = 1
        if self.slots is not None:
            heads = np.repeat(groups, shape.group_size, axis=1)
        weights = np.concatenate([heads, groups], axis=1) * float(self.projection_bytes)
        return np.concatenate([tokens * float(self.token_bytes), weights], axis=1)

    def kv_bytes(self, layer: int, shares: Shares) -> Floats:
        """K/V of one layer, `[devices]`, for its heads' shares."""
        if self.slots is not None:
            every = self.slots * self._reaches[layer] * self.token_bytes
            return np.full(shares.devices, every)
        _, device = shares.of_groups(self._group_of)
        held = np.bincount(device, self._tokens(layer, shares), shares.devices)
        return np.asarray(held * float(self.token_bytes))

    def held_bytes(self, layer: int, shares: Shares) -> Floats:
        """Weights and K/V of one layer, `[devices]`, for its heads' shares."""
        if self.slots is not None:
            return np.full(shares.devices, self.slots * self.slot_bytes[layer])
        _, device = shares.of_groups(self._group_of)
        projected = np.bincount(np.append(shares.device, device), minlength=shares.devices)
        return self.kv_bytes(layer, shares) + projected * float(self.projection_bytes)

    @cached_property
    def _group_of(self) -> Ints:
        """The KV group of every query head, `[heads]`."""
        return np.repeat(np.arange(self.architecture.kv_heads), self.architecture.group_size)

    def _tokens(self, layer: int, shares: Shares) -> Floats:
        """What each (group, device) pair keeps, as much as its hungriest head there, `[pairs]`.

        Pairs as of `Shares.of_groups`.
        """
        pair = self._group_of[shares.item] * shares.devices + shares.device
        order = np.argsort(pair, kind="stable")
        _, first = np.unique(pair[order], return_index=True)
        kept = np.ravel(self.kept_tokens[layer])[shares.item]
        return np.asarray(np.maximum.reduceat(kept[order], first))


def fetched_bytes(wanted: Floats, held: Floats) -> Floats:
    """What each device lacks of what it is to hold, `[devices]`, both being `holdings`.

    Kept tokens nest: of K/V that is there already only what a larger budget adds is fetched.
    """
    return np.asarray(np.maximum(wanted - held, 0).sum(axis=1))


def fetched_pairs(wanted: Floats, held: Floats) -> Floats:
    """What device d lacks of what column j is to hold, `[columns, devices]`.

    The sum of max(w - h, 0) is half of the sum of |w - h| + w - h.
    """
    apart = cdist(wanted, held, "cityblock")
    return np.asarray((apart + wanted.sum(axis=1)[:, None] - held.sum(axis=1)[None, :]) / 2)


def device_limits(types: Sequence[str], reserved_share: float, limit_bytes: int | None) -> Ints:
    """Bytes each device may hold, `[devices]`: as said, or its type's memory less what is kept."""
    if limit_bytes is not None:
        return np.full(len(types), limit_bytes, dtype=np.int64)
    memory = [int(device_profile(name).memory_bytes * (1 - reserved_share)) for name in types]
    return np.array(memory, dtype=np.int64)
