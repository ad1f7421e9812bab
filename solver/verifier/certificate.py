"""The plan's certificate: every layer's bound, proved again as far as time allows.

A bound must be within the makespan and what the proof that it names gives. It is then proved anew,
whatever it names: by the simple bounds, and where heads stay whole by fillings of devices. With
several workloads a layer's makespan is at least the weighted sum of what bounds each of them alone,
and at least the makespan of the weighted costs.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from solver.verifier.bounds import Instance, Scale, named_bounds, simple_bound
from solver.verifier.fillings import reachable
from solver.verifier.form import Json
from solver.verifier.loads import RELATIVE, Served, blended_makespans
from solver.verifier.rules import copies_of

JOINED = "weighted sum of "


@dataclass(frozen=True)
class LayerBound:
    """A layer's recomputed makespan, the bound that the plan claims, and what was proved of it.

    A claim is `proved` if it is no more than `proved_s`, `false` if the makespan, the proof that
    it names or another placement contradicts it, and else `unproved`.
    """

    makespan_s: float
    claimed_s: float
    proved_s: float
    proof: str
    verdict: Literal["proved", "unproved", "false"]


def certify(
    plan: Json,
    served: Sequence[Served],
    time_limit_s: float,
    on_bound: Callable[[int, int], None] = lambda *_: None,
) -> tuple[list[LayerBound], list[str]]:
    """Every layer's bound, and what is wrong with those that are false.

    `on_bound` gets how many are settled, and of how many.
    """
    until = time.monotonic() + time_limit_s
    bounds: list[LayerBound] = []
    faults: list[str] = []
    waiting: dict[_Question, list[int]] = {}
    for index, makespan_s in enumerate(blended_makespans(served)):
        layer = _Layer(plan, index, served, makespan_s)
        found = layer.contradictions()
        faults += [f"layer {index}: {fault}" for fault in found]
        bound = layer.simple_bound(until)
        bounds.append(replace(bound, verdict="false") if found else bound)
        if bounds[-1].verdict == "unproved" and not plan["rules"]["divisible"]:
            waiting.setdefault(layer.question(), []).append(index)
    settled = len(bounds) - sum(map(len, waiting.values()))
    on_bound(settled, len(bounds))
    for question, reached in _answers(waiting, until):
        settled += len(waiting[question])
        on_bound(settled, len(bounds))
        for index in waiting[question]:
            claimed_s = bounds[index].claimed_s
            if not reached:
                bounds[index] = replace(
                    bounds[index], proved_s=claimed_s, proof="fillings of devices", verdict="proved"
                )
            elif len(served) == 1 and plan["memory"] is None and not _needs_slots(question[0]):
                # Else the placement found says nothing: of every workload, or of what has room.
                bounds[index] = replace(bounds[index], verdict="false")
                fault = f"bound {claimed_s} s, but there is a placement below it"
                faults.append(f"layer {index}: {fault}")
    return bounds, faults


_Question = tuple[Instance, int]
"""Whether an instance can be placed within a level."""


def _answers(questions: Iterable[_Question], until: float) -> Iterator[tuple[_Question, bool]]:
    """Those found in time; what is quick leaves time for a second try at the others."""
    waiting = list(questions)
    for _ in range(2):
        undecided = []
        for asked, question in enumerate(waiting):
            now = time.monotonic()
            if now > until:
                return
            reached = _reachable(*question, now + (until - now) / (len(waiting) - asked))
            if reached is None:
                undecided.append(question)
            else:
                yield question, reached
        waiting = undecided


def _reachable(instance: Instance, level: int, until: float) -> bool | None:
    """Whether it can be placed within a level: slots are let go, where groups are copied none."""
    if instance.slots is None or _needs_slots(instance):
        return reachable(instance, level, until)
    answers = [reachable(alone, level, until) for alone in _apart(instance)]
    return None if None in answers and False not in answers else all(answers)


def _needs_slots(instance: Instance) -> bool:
    """Whether a placement that is found may take more slots than there are."""
    return instance.slots is not None and not (instance.equal_counts and instance.identical)


def _apart(instance: Instance) -> Iterator[Instance]:
    """Every group on the devices that copy it, as many for each: one does not bear on another."""
    copies = instance.devices[0] // len(instance.charge)
    for group, charge in enumerate(instance.charge):
        own = [item for item, of in enumerate(instance.group_of) if of == group]
        yield replace(
            instance,
            whole=tuple(instance.whole[item] for item in own),
            part=tuple(instance.part[item] for item in own),
            charge=(charge,),
            group_of=(0,) * len(own),
            devices=(copies,),
            slots=None,
        )


@dataclass(frozen=True)
class _Layer:
    """One layer of a plan, under all workloads that the placement serves."""

    plan: Json
    index: int
    served: Sequence[Served]
    makespan_s: float

    @property
    def claim(self) -> Json:
        found: Json = self.plan["layers"][self.index]
        return found

    @property
    def goal_s(self) -> float:
        """The claim, less what sums of floats may differ by."""
        return float(self.claim["lower_bound_s"]) * (1 - RELATIVE)

    @cached_property
    def alone(self) -> list[tuple[Instance, Scale]]:
        """Every workload's instance."""
        return [self._instance([one], one.makespans[self.index]) for one in self.served]

    def question(self) -> _Question:
        """Whether the weighted costs can be placed below the claim."""
        instance, scale = self._instance(self.served, self.makespan_s)
        return instance, scale.units(self.goal_s)

    def simple_bound(self, seek_until: float) -> LayerBound:
        """What the simple bounds prove; of one workload among several the claim says nothing."""
        claimed_s = self.claim["lower_bound_s"]
        verdict: Literal["proved", "unproved"]
        proved, names = [], []
        for one, (instance, scale) in zip(self.served, self.alone, strict=True):
            if len(self.served) == 1:
                units, name = simple_bound(instance, scale.units(self.goal_s) + 1)
            else:
                most = scale.units(one.makespans[self.index])
                units, name = simple_bound(instance, most, seek_until)
            proved.append(one.weight * scale.seconds(units))
            names.append(name)
        proof = ", ".join(dict.fromkeys(names))
        if len(names) > 1:
            proof = JOINED + proof
        proved_s = math.fsum(proved)
        verdict = "proved" if self.goal_s <= proved_s else "unproved"
        return LayerBound(self.makespan_s, claimed_s, proved_s, proof, verdict)

    def contradictions(self) -> list[str]:
        """How the claim cannot be true, or is not what it says it is proved by."""
        claimed_s, proof = self.claim["lower_bound_s"], self.claim["bound"]
        faults = []
        if claimed_s > self.makespan_s * (1 + RELATIVE):
            faults.append(f"bound {claimed_s} s is above the makespan")
        names = proof.removeprefix(JOINED).split(", ")
        proved = []
        for one, (instance, scale) in zip(self.served, self.alone, strict=True):
            known = named_bounds(instance)
            if any(name not in known for name in names):
                return faults
            proved.append(one.weight * scale.seconds(max(known[name] for name in names)))
        proved_s = math.fsum(proved)
        if claimed_s > proved_s * (1 + RELATIVE):
            faults.append(f"bound {claimed_s} s by {proof}, which gives {proved_s} s")
        return faults

    def _instance(self, served: Sequence[Served], makespan_s: float) -> tuple[Instance, Scale]:
        """The layer's items at the weighted costs of some workloads; one alone counts in full."""
        plan, scale = self.plan, Scale(makespan_s)
        rules, shape = plan["rules"], plan["architecture"]
        costs = [one.claim["costs"] for one in served]
        weights = [one.weight for one in served] if len(served) > 1 else [1.0]
        size, types = shape["query_heads"] // shape["kv_heads"], range(len(plan["device_types"]))

        def units(arrays: Sequence[list[list[float]]], members: Iterable[int]) -> tuple[int, ...]:
            """The sum of some rows, `arrays` by workload [rows][types]."""
            rows = [
                [weight * seconds for seconds in array[member]]
                for weight, array in zip(weights, arrays, strict=True)
                for member in members
            ]
            return tuple(scale.units(math.fsum(row[t] for row in rows)) for t in types)

        heads = [c["head_s"][self.index] for c in costs]
        groups = [c["group_s"][self.index] for c in costs]
        copied = rules["unit"] == "kv_group" and copies_of(plan) > 1
        whole_groups = rules["unit"] == "kv_group" and not copied
        items = [
            range(first, first + (size if whole_groups else 1))
            for first in range(0, shape["query_heads"], size if whole_groups else 1)
        ]
        none = (0,) * len(types)
        parts = [none] * len(items)
        if all(c["part_s"] for c in costs) and not whole_groups:
            parts = [units([c["part_s"][self.index] for c in costs], item) for item in items]
        devices = len(plan["devices"])
        instance = Instance(
            whole=tuple(units(heads, item) for item in items),
            part=tuple(parts),
            charge=tuple(units(groups, [group]) for group in range(shape["kv_heads"])),
            group_of=tuple(item.start // size for item in items),
            launch=units([[c["launch_s"]] for c in costs], [0]),
            devices=tuple(map(plan["devices"].count, plan["device_types"])),
            copies=min(rules["max_copies"] or devices, devices) if rules["divisible"] else 1,
            equal_counts=rules["equal_counts"] or copied,
            slots=1 if copied else plan["slots"],
        )
        return instance, scale
