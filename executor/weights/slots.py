"""Which KV group every rank holds in which slot, layer by layer: a plan as a stock engine lays it.

A tensor-parallel engine gives every rank the same number of KV heads, and each of them the same
number of query heads. Here those are slots: a slot holds a KV group, a copy of one, or nothing. An
engine that loads what each rank is told to needs no padding: as many slots as a rank has groups.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from executor.errors import WeightsError
from executor.row_ranges import Range, row_ranges
from profiles.architecture import Architecture
from solver.plans import Entry, Plan

Index = Annotated[int, Field(ge=0)]
Held = dict[int, dict[int, Range]]
"""A rank's KV groups in a layer, and of each the heads it computes with their rows."""


class Record(BaseModel):
    """What a plan's JSON beside the weights is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Slot(Record):
    """A KV group on a rank: its query heads in the order of their slots, and what each computes.

    `rows` are ranges of a head's cumulative shares, (0, 1) the whole head; None is a head that
    other ranks compute, for which this one leaves zeros.
    """

    group: Index
    heads: tuple[Index, ...]
    rows: tuple[Range | None, ...]


QuerySlot = tuple[int, int | None, Range | None]
"""A query slot: the KV slot that its keys are in, its head and which rows of it; None for none."""


class Layout(Record):
    """Which slot is which head: `layers` [layers][ranks][slots], None where a slot holds nothing.

    A rank may have other numbers of slots and heads in every layer. An empty one is a query slot.
    """

    layers: tuple[tuple[tuple[Slot | None, ...], ...], ...]

    @property
    def ranks(self) -> int:
        return len(self.layers[0])

    @property
    def empty_heads(self) -> int:
        """Query slots of a KV slot that holds nothing."""
        return 1

    @property
    def needs_map(self) -> bool:
        """Whether a slot's head is not computed whole, so that stock attention would add twice."""
        return any(rows != (0.0, 1.0) for slot in self.filled for rows in slot.rows)

    @property
    def filled(self) -> tuple[Slot, ...]:
        """All slots that hold a group."""
        return tuple(s for layer in self.layers for rank in layer for s in rank if s is not None)

    def kv_slots(self, layer: int, ranks: Sequence[int] | None = None) -> list[Slot | None]:
        """The KV slots of some ranks, one after another, or of all."""
        chosen = range(self.ranks) if ranks is None else ranks
        return [slot for rank in chosen for slot in self.layers[layer][rank]]

    def query_slots(self, layer: int, ranks: Sequence[int] | None = None) -> list[QuerySlot]:
        """The query slots of some ranks, one after another, or of all."""
        empty = [(None, None)] * self.empty_heads
        return [
            (number, head, rows)
            for number, slot in enumerate(self.kv_slots(layer, ranks))
            for head, rows in (empty if slot is None else zip(slot.heads, slot.rows, strict=True))
        ]

    def groups(self, layer: int, ranks: Sequence[int] | None = None) -> list[int | None]:
        """The KV group of every KV slot."""
        return [None if slot is None else slot.group for slot in self.kv_slots(layer, ranks)]

    def heads(self, layer: int, ranks: Sequence[int] | None = None) -> list[int | None]:
        """The query head of every query slot."""
        return [head for _, head, _ in self.query_slots(layer, ranks)]


class SlotLayout(Layout):
    """As many slots on every rank, and in each `slot_heads` query slots: what a checkpoint can be
    for a stock engine."""

    slot_heads: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        if len({(len(layer), len(rank)) for layer in self.layers for rank in layer}) != 1:
            raise ValueError("layers: must have the same ranks and slots each")
        sizes = {len(kept) for slot in self.filled for kept in (slot.heads, slot.rows)}
        if sizes - {self.slot_heads}:
            raise ValueError(f"layers: every slot must have {self.slot_heads} heads and rows")
        return self

    @property
    def slots(self) -> int:
        """KV slots of a rank."""
        return len(self.layers[0][0])

    @property
    def id(self) -> str:
        """SHA-256 of which head is in which slot: what the weights follow from."""
        held = [(self.groups(layer), self.heads(layer)) for layer in range(len(self.layers))]
        text = json.dumps([self.ranks, self.slots, held], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def empty_heads(self) -> int:
        """Query slots of a KV slot that holds nothing: as many as of any."""
        return self.slot_heads

    def padded(self, model: Architecture) -> Architecture:
        """The model that a checkpoint with these slots is: every slot of every rank a head."""
        kv_heads = self.ranks * self.slots
        heads = {"kv_heads": kv_heads, "query_heads": kv_heads * self.slot_heads}
        return model.model_copy(update=heads)


def unpadded(plan: Plan) -> Layout:
    """What every rank of any plan computes and no more: groups ascending, of each the heads that
    it has rows of.

    A rank without work in a layer has an empty slot there, for engines know no attention of no
    heads. Raises ShardError for shares that do not add to 1.
    """

    def rank(groups: Held) -> tuple[Slot | None, ...]:
        found = tuple(_of_rows(group, groups[group]) for group in sorted(groups))
        return found or (None,)

    return Layout(
        layers=tuple(
            tuple(rank(groups) for groups in _held(plan, layer))
            for layer in range(len(plan.layers))
        )
    )


def slots_of(plan: Plan) -> SlotLayout:
    """The slots of a plan: as many a rank as it was made with, groups ascending.

    A plan made without slots has as many as its devices hold groups, where that is one number. If
    they hold whole heads of them, equally many, a slot has those alone: with more ranks than KV
    heads, the replicas that an engine makes. Raises WeightsError for any other plan without slots,
    with the `--slots` to ask for.
    """
    held = [_held(plan, layer) for layer in range(len(plan.layers))]
    most = max(len(groups) for layer in held for groups in layer)
    size = plan.architecture.group_size
    if plan.slots is not None:
        for number, layer in enumerate(held):
            for device, groups in enumerate(layer):
                if len(groups) > plan.slots:
                    raise WeightsError(
                        f"plan: layer {number}: device {device} has {len(groups)} KV groups, more "
                        f"than the plan's {plan.slots} slots"
                    )
        return _laid_out(plan, held, plan.slots, size)
    counts = {len(groups) for layer in held for groups in layer}
    heads = {len(found) for layer in held for groups in layer for found in groups.values()}
    whole = all(
        rows == (0.0, 1.0)
        for layer in held
        for groups in layer
        for found in groups.values()
        for rows in found.values()
    )
    if not whole or len(counts) > 1 or len(heads) > 1:
        raise WeightsError(
            f"plan {plan.id[:12]}: fits no engine as it is: {_why(held, whole)}; a stock engine "
            f"gives every rank as many KV heads and whole query heads: plan with --slots {most}"
        )
    return _laid_out(plan, held, most, min(heads))


def _held(plan: Plan, layer: int) -> list[Held]:
    """What every device holds, `[devices]`."""
    found: list[Held] = [{} for _ in plan.devices]
    for head, entries in enumerate(plan.layers[layer].heads):
        group = plan.architecture.kv_head(head)
        for entry, rows in zip(entries, row_ranges(entries, layer, head), strict=True):
            found[entry.device].setdefault(group, {})[head] = rows
    return found


def _laid_out(plan: Plan, held: list[list[Held]], slots: int, size: int) -> SlotLayout:
    """A device's KV groups in ascending slots of `size` heads, all of a group or those it has."""
    every = plan.architecture.group_size

    def slot(group: int, found: dict[int, Range]) -> Slot:
        if size < every:
            return _of_rows(group, found)
        heads = range(group * every, (group + 1) * every)
        return Slot(group=group, heads=tuple(heads), rows=tuple(map(found.get, heads)))

    def rank(groups: Held) -> tuple[Slot | None, ...]:
        filled = tuple(slot(group, groups[group]) for group in sorted(groups))
        return filled + (None,) * (slots - len(groups))

    return SlotLayout(
        slot_heads=size, layers=tuple(tuple(rank(groups) for groups in layer) for layer in held)
    )


def _of_rows(group: int, found: dict[int, Range]) -> Slot:
    """A slot of the heads alone that a device has rows of."""
    heads = tuple(sorted(found))
    return Slot(group=group, heads=heads, rows=tuple(found[head] for head in heads))


def _why(held: list[list[Held]], whole: bool) -> str:
    """The first thing that no engine can hold."""
    for number, layer in enumerate(held):
        counts = [len(groups) for groups in layer]
        if min(counts) != max(counts):
            few, many = counts.index(min(counts)), counts.index(max(counts))
            return (
                f"in layer {number} device {few} has {min(counts)} KV groups and device {many} "
                f"{max(counts)}"
            )
    if not whole:
        return "heads are divided"
    for number, layer in enumerate(held):
        sizes = {len(found) for groups in layer for found in groups.values()}
        if len(sizes) > 1:
            return (
                f"in layer {number} devices compute {min(sizes)} to {max(sizes)} heads of a KV "
                "group"
            )
    return "layers differ in the KV groups or heads that a device has"


def padded_contiguous(plan: Plan) -> Plan:
    """The plan with its KV groups in file order, in as few slots a device as hold them.

    What a stock engine does once its heads are padded. The predictions stay those of the plan.
    """
    shape = plan.architecture
    slots = -(-shape.kv_heads // len(plan.devices))
    heads = [[Entry(device=shape.kv_head(head) // slots)] for head in range(shape.query_heads)]
    layers = [layer.model_copy(update={"heads": heads}) for layer in plan.layers]
    return plan.model_copy(update={"layers": layers, "slots": slots}).identified()
