"""Whether a batch can be true of the plan that is live: what is refused, what is not believed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.client.bodies import Columns, HeadColumns, StepReport, WatchedColumns
from api.problems import bad_field
from profiles.catalogue import device_profile
from profiles.cost.roofline import fastest_possible_s
from profiles.cost.work import Floats, budget_pieces
from profiles.sizes import causal_pieces
from solver.planning.predict import shard_work
from solver.plans import Plan

COUNTS_MAY_DIFFER = 2.0
"""Executors report what they really counted; a report further off is not of this plan's work."""
REASONS = ("work", "seconds", "heads")
PLANS_REMEMBERED = 64

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Samples:
    """A batch's samples: `layers`, `devices`, `seconds` [samples], `work` [samples, FEATURES].

    `steps` [samples] are the places of an engine's steps that they are of, `watched` what was
    watched there. `in_columns` is the form they came in, by which their fields are named.
    """

    layers: Ints
    devices: Ints
    seconds: Floats
    work: Floats
    heads: HeadColumns | None
    watched: WatchedColumns | None
    in_columns: bool
    steps: Ints | None = None

    def field(self, sample: int, name: str) -> str:
        """A sample's field as its sender knows it."""
        return f"columns.{name}.{sample}" if self.in_columns else f"samples.{sample}.{name}"

    def only(self, chosen: Mask) -> "Samples":
        """Some of them, and what was reported of their heads."""
        return replace(
            self,
            layers=self.layers[chosen],
            devices=self.devices[chosen],
            seconds=self.seconds[chosen],
            work=self.work[chosen],
            heads=_only(self.heads, chosen),
            watched=_only(self.watched, chosen),
            steps=None if self.steps is None else self.steps[chosen],
        )

    def head_rows(self) -> list[tuple[int, int, int, int, float]]:
        """(layer, head, rows, tiles, recovery) of every report."""
        heads = self.heads
        if heads is None:
            return []
        layers = self.layers[np.array(heads.sample, dtype=np.int64)].tolist()
        return list(zip(layers, heads.head, heads.rows, heads.tiles, heads.recovery, strict=True))


def _only(columns: Columns | None, chosen: Mask) -> Columns | None:
    """Reports of the chosen samples, numbered among these."""
    if columns is None:
        return None
    places = (np.cumsum(chosen) - 1).tolist()
    kept = [i for i, sample in enumerate(columns.sample) if chosen[sample]]
    of_kept: dict[str, Any] = {name: [column[i] for i in kept] for name, column in columns}
    of_kept["sample"] = [places[sample] for sample in of_kept["sample"]]
    return type(columns).model_construct(**of_kept)


@dataclass(frozen=True, eq=False)
class _Planned:
    """What a plan has every device do: `work` [layers, devices, FEATURES], and by (layer, device)
    the heads that it computes, with how much of each."""

    work: Floats
    shares: dict[tuple[int, int], dict[int, float]]


def check_places(
    samples: Samples, node_id: str, part: Collection[int], layers: Collection[int]
) -> None:
    """Raises Problem: 422 for devices and layers that a node does not run, or that come twice: in a
    round, or in one step of an engine."""
    seen = set()
    places = zip(samples.layers.tolist(), samples.devices.tolist(), strict=True)
    for i, (layer, device) in enumerate(places):
        if device not in part:
            raise bad_field(
                samples.field(i, "device"),
                f"node {node_id!r} plays devices {part}, not {device}",
            )
        if layer not in layers:
            raise bad_field(samples.field(i, "layer"), f"layer {layer} is not one of {layers}")
        step = None if samples.steps is None else int(samples.steps[i])
        if (layer, device, step) in seen:
            which = "one batch is one round" if step is None else f"all in step {step}"
            raise bad_field(
                "columns" if samples.in_columns else "samples",
                f"layer {layer} of device {device} comes more than once; {which}",
            )
        seen.add((layer, device, step))


def check_steps(samples: Samples, steps: int) -> None:
    """Raises Problem: 422 for samples of none of a batch's `steps`, or of any where it has none,
    and for recovery as the other kind of batch reports it."""
    whole = "columns.step" if samples.in_columns else "samples"
    if (samples.steps is None) != (steps == 0):
        raise bad_field(whole, "samples have a step where their batch has steps, and only there")
    if samples.steps is None:
        if samples.watched is not None and samples.watched.sample:
            raise bad_field(whole, "rows are watched in an engine's steps, not in rounds")
        return
    if samples.heads is not None and samples.heads.sample:
        raise bad_field(whole, "recovery is reported of rounds, not of an engine's steps")
    beyond = np.nonzero(samples.steps >= steps)[0]
    if len(beyond):
        raise bad_field(
            samples.field(int(beyond[0]), "step"), f"the batch has steps 0 to {steps - 1}"
        )


def check_heads(samples: Samples, plan: Plan) -> None:
    """Raises Problem: 422 for heads that the device does not compute, or one that comes twice."""
    heads = samples.heads
    if heads is None:
        return
    if plan.workload.phase != "prefill" and heads.sample:
        whole = "columns.heads" if samples.in_columns else f"samples.{heads.sample[0]}.heads"
        raise bad_field(whole, "recovery is reported of whole prompts; the plan decodes")
    shares = _planned(plan).shares
    seen: set[tuple[int, int]] = set()
    within: dict[int, int] = {}
    for i, (sample, head) in enumerate(zip(heads.sample, heads.head, strict=True)):
        own = within[sample] = within.get(sample, -1) + 1
        field = f"samples.{sample}.heads.{own}.head"
        if samples.in_columns:
            field = f"columns.heads.head.{i}"
        layer, device = int(samples.layers[sample]), int(samples.devices[sample])
        here = shares.get((layer, device), {})
        if head not in here:
            raise bad_field(
                field,
                f"device {device} computes heads {sorted(here)} of layer {layer}, not {head}",
            )
        if (sample, head) in seen:
            raise bad_field(field, f"head {head} comes twice")
        seen.add((sample, head))


def check_watched(samples: Samples, plan: Plan) -> None:
    """Raises Problem: 422 for rows of heads that the device does not compute, and for no rows."""
    watched = samples.watched
    if watched is None:
        return
    shares = _planned(plan).shares
    within: dict[int, int] = {}
    for i, (sample, head, first, last) in enumerate(
        zip(watched.sample, watched.head, watched.first, watched.last, strict=True)
    ):
        own = within[sample] = within.get(sample, -1) + 1
        layer, device = int(samples.layers[sample]), int(samples.devices[sample])
        here = shares.get((layer, device), {})
        name = fault = None
        if head not in here:
            name = "head"
            fault = f"device {device} computes heads {sorted(here)} of layer {layer}, not {head}"
        elif first >= last:
            name, fault = "last", f"rows from {first} up to {last} are none"
        if name is not None and fault is not None:
            place = f"columns.watched.{name}.{i}"
            own_place = f"samples.{sample}.watched.{own}.{name}"
            raise bad_field(place if samples.in_columns else own_place, fault)


def doubts(samples: Samples, plan: Plan, steps: Sequence[StepReport] = ()) -> dict[str, Mask]:
    """The samples that are not believed, by REASONS, each under the first that holds.

    [samples] each; the places are the plan's. `work`: not what the plan gave the device, or of an
    engine's step, which nobody knows but the engine, none; `seconds`: no chip of its type is so
    fast; `heads`: rows and tiles of heads not near the plan's, or rows watched that are none of the
    sample's step of `steps`.
    """
    if samples.steps is None:
        planned = _planned(plan).work[samples.layers, samples.devices]
        near = (samples.work <= COUNTS_MAY_DIFFER * planned) & (
            samples.work * COUNTS_MAY_DIFFER >= planned
        )
        likely = near.all(axis=1)
    else:
        likely = samples.work.any(axis=1)
    fastest_s = np.empty(len(samples.layers))
    types = np.array(plan.devices)[samples.devices]
    for name in set(types.tolist()):
        of_type = types == name
        fastest_s[of_type] = fastest_possible_s(device_profile(name), samples.work[of_type])
    true = [likely, samples.seconds >= fastest_s]
    of_heads = np.ones_like(true[0])
    if samples.heads is not None:
        of_heads &= _near_heads(samples, samples.heads, plan)
    if samples.watched is not None:
        of_heads &= _of_steps(samples, samples.watched, steps)
    true.append(of_heads)
    found, left = {}, np.ones_like(true[0])
    for reason, holds in zip(REASONS, true, strict=True):
        found[reason] = left & ~holds
        left &= holds
    return found


def _near_heads(samples: Samples, heads: HeadColumns, plan: Plan) -> Mask:
    """Whether rows and tiles are near the plan's; a share's ends may be off by a query block."""
    step, shares = plan.workload.workload, _planned(plan).shares
    found = np.ones(len(samples.layers), dtype=bool)
    for sample, head, rows, reported in zip(
        heads.sample, heads.head, heads.rows, heads.tiles, strict=True
    ):
        layer, device = int(samples.layers[sample]), int(samples.devices[sample])
        pieces = budget_pieces(np.array(plan.budgets[layer][head]), step)
        whole = int(causal_pieces(pieces, step.context_blocks, step.block_pieces))
        tiles = shares[layer, device][head] * whole
        low, high = tiles / COUNTS_MAY_DIFFER - pieces, COUNTS_MAY_DIFFER * tiles + pieces
        if not step.batch_size * low <= reported <= step.batch_size * high:
            found[sample] = False
        if rows > step.batch_size * step.context_tokens:
            found[sample] = False
    return found


def _of_steps(samples: Samples, watched: WatchedColumns, steps: Sequence[StepReport]) -> Mask:
    """Whether the rows watched can be those of each sample's step, of every head no more than it
    brought; means of positions are rounded to whole ones."""
    assert samples.steps is not None
    found = np.ones(len(samples.layers), dtype=bool)
    brought: dict[tuple[int, int], int] = {}
    for sample, head, first, last, rows in zip(
        watched.sample, watched.head, watched.first, watched.last, watched.rows, strict=True
    ):
        step = steps[samples.steps[sample]]
        of_head = brought[sample, head] = brought.get((sample, head), 0) + rows
        length = last - first
        decodes = step.phase == "decode"
        if last > step.context_tokens or of_head > step.new_tokens or (decodes and length > 1):
            found[sample] = False
        if not decodes and rows > step.sequences * (length + 1):
            found[sample] = False
    return found


_remembered: dict[str, _Planned] = {}
"""By plan id, of the newest plans reported on."""


def _planned(plan: Plan) -> _Planned:
    found = _remembered.get(plan.id)
    if found is None:
        shares: dict[tuple[int, int], dict[int, float]] = {}
        for layer, decided in enumerate(plan.layers):
            for head, entries in enumerate(decided.heads):
                for entry in entries:
                    shares.setdefault((layer, entry.device), {})[head] = entry.share
        work = np.array([shard_work(plan, layer) for layer in range(len(plan.layers))])
        found = _remembered[plan.id] = _Planned(work, shares)
        for oldest in list(_remembered)[:-PLANS_REMEMBERED]:
            _remembered.pop(oldest, None)
    return found
