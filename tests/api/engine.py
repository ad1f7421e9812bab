"""An engine of two ranks on simulated devices of known rates, and what it tells of its steps."""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from executor.inference.phase_work import phase_work
from executor.inference.slot_steps import Phase as Part
from executor.inference.slot_steps import SlotSteps
from executor.inference.watched_rows import HeldRows, watched_rows
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from profiles.catalogue import catalogue_rates
from profiles.cost.work import FEATURES, Floats, Phase
from solver.plans import Plan
from tests.api.world import Json

MOST_TOKENS = 8192
SLOWER = {"launches": 6.0, "dense_tile_flops": 1.7, "gathered_tile_flops": 3.1, "kv_bytes": 2.2}
"""What the simulated device takes of a unit, by what the catalogue believes of it."""
Lengths = Sequence[tuple[int, int]]
"""Tokens had and held of every sequence of a step."""


class Device:
    """An engine of two ranks on simulated CPUs of known rates, all of which tell the same steps."""

    def __init__(
        self,
        plan: Plan,
        slower: dict[str, float] = SLOWER,
        recovers: Callable[[Phase, int, HeldRows], Floats] | None = None,
    ) -> None:
        """`recovers` says what the rows of a layer recover, where they are watched."""
        made = ExecutionMap.of(plan, slots_of(plan), original=Original(tensors_sha256="", files={}))
        layers, cpu = range(len(plan.layers)), torch.device("cpu")
        self.plan, self._recovers = plan, recovers
        self._layout = made.layout
        self.ranks = [SlotSteps(made, (rank,), MOST_TOKENS, cpu, layers) for rank in range(2)]
        factor = np.array([slower.get(name, 1.0) for name in FEATURES])
        self.rates = {
            phase: catalogue_rates(["cpu"], phase)["cpu"].vector * factor
            for phase in ("prefill", "decode")
        }
        self._noise = random.Random(0)
        self._numbers, self.run = count(64, 64), uuid4().hex

    def work(self, rank: int, lengths: Lengths) -> list[tuple[Phase, Any, Floats]]:
        """Of a step's parts: phase, lengths and work [layers, FEATURES]."""
        steps = self.ranks[rank]
        had, has = zip(*lengths, strict=True)
        return [
            (
                "decode" if (of.context - of.cached == 1).all() else "prefill",
                of,
                phase_work(of, steps.groups, self.plan.architecture),
            )
            for of in steps.of_batch(had, has).phases
        ]

    def batches(self, view: Json, steps: Iterable[Lengths]) -> list[Json]:
        """What both ranks report of some steps."""
        numbered = [(next(self._numbers), lengths) for lengths in steps]
        return [self._batch(view, rank, numbered) for rank in range(2)]

    def _batch(self, view: Json, rank: int, numbered: list[tuple[int, Lengths]]) -> Json:
        parts: list[Json] = []
        samples: list[Json] = []
        for number, lengths in numbered:
            for phase, of, work in self.work(rank, lengths):
                new, whole = of.context - of.cached, of.context
                if phase == "prefill":
                    whole = whole + of.cached
                watched = self._watched(rank, phase, of)
                samples += [
                    {
                        "layer": layer,
                        "device": rank,
                        "step": len(parts),
                        "seconds": float(units @ self.rates[phase])
                        * self._noise.uniform(0.98, 1.02),
                        "work": dict(zip(FEATURES, units.tolist(), strict=True)),
                        **({"watched": watched[layer]} if layer in watched else {}),
                    }
                    for layer, units in enumerate(work)
                    if units.any()
                ]
                parts.append(
                    {
                        "number": number,
                        "phase": phase,
                        "sequences": len(new),
                        "new_tokens": int(new.sum()),
                        "context_tokens": int(of.context.max()),
                        "mean_tokens": float(np.average(whole, weights=new)),
                    }
                )
        return {
            "batch_id": uuid4().hex,
            "deployment": view["name"],
            "plan_id": view["plan_id"],
            "generation": view["generation"],
            "node_id": f"e-{rank}",
            "timing": "concurrent",
            "run": self.run,
            "steps": parts,
            "samples": samples,
        }

    def _watched(self, rank: int, phase: Phase, of: Part) -> dict[int, list[Json]]:
        """What every layer's lists held, of all layers in each step."""
        if self._recovers is None:
            return {}
        found = {}
        for layer, step in enumerate(of.steps):
            if step is None:
                continue
            lists = step.decode.heads.shape if step.decode else (len(step.prefill.heads),)
            heads = self._layout.heads(layer, (rank,))
            rows = watched_rows(step, of.context, heads, np.ones(tuple(lists))).alike
            recovery = self._recovers(phase, layer, rows)
            columns = (rows.head, rows.first, rows.last, rows.rows, recovery)
            named = ("head", "first", "last", "rows", "recovery")
            values = zip(*(x.tolist() for x in columns), strict=True)
            found[layer] = [dict(zip(named, each, strict=True)) for each in values]
        return found


def mixed(draw: random.Random, steps: int) -> list[Lengths]:
    """Chunks of prompts beside decodes, decodes alone, a few whole prompts; all lengths."""
    found = []
    for _ in range(steps):
        decodes = [draw.randint(40, 4000) for _ in range(draw.randint(0, 6))]
        lengths = [(n - 1, n) for n in decodes]
        if draw.random() < 0.5 or not lengths:
            had = 512 * draw.randint(0, 7)
            lengths.append((had, had + draw.choice([96, 300, 512])))
        found.append(lengths)
    return found
