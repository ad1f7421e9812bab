"""The verifier: what a plan claims, checked again from its JSON alone.

Form, shapes, coverage, rules, loads of every workload, makespans, figures, bytes and the content's
id are recomputed from the costs the plan carries. Every layer's bound is proved again, in a bounded
time; one that is neither proved nor contradicted is unproved, which is no fault. What it cannot
check: that the costs follow from the budgets by some rates, that recoveries, replicas and other
placements are as said, and the words in `reason`, `stock_reason` and `warnings`.

Shares no code with the solvers, and uses plain Python where they use arrays, so that a mistake in
one is not repeated in the other.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from solver.verifier.certificate import LayerBound, certify
from solver.verifier.figures import wrong_figures
from solver.verifier.form import Json, read_plan, wrong_id
from solver.verifier.loads import serve
from solver.verifier.rules import broken_rules, present, uncovered

__all__ = ["TIME_LIMIT_S", "LayerBound", "Verdict", "verify"]

TIME_LIMIT_S = 10.0
"""Seconds that proving the bounds again may take."""


class WrittenAsJson(Protocol):
    """A plan as an object, as the solver returns it."""

    def model_dump_json(self) -> str: ...


@dataclass(frozen=True)
class Verdict:
    """Everything found wrong, in words, and every layer's bound.

    `layers` is empty where the plan cannot be read, or where heads are not covered.
    """

    faults: list[str]
    layers: list[LayerBound] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong: the plan keeps every promise but `unproved` bounds."""
        return not self.faults

    @property
    def unproved(self) -> list[int]:
        """Layers whose bound could neither be proved nor contradicted in the time there was."""
        return [index for index, layer in enumerate(self.layers) if layer.verdict == "unproved"]


def verify(
    plan: WrittenAsJson | Json | str | PathLike[str],
    *,
    time_limit_s: float = TIME_LIMIT_S,
    on_bound: Callable[[int, int], None] = lambda *_: None,
) -> Verdict:
    """Check a plan: the object, its JSON, or the path of a file.

    Proving bounds takes at most `time_limit_s` seconds, and with 0 no more than the simple bounds;
    `on_bound` gets how many layers' bounds are settled meanwhile, and of how many. A path that
    cannot be read raises OSError, a file that is no JSON ValueError.
    """
    content = _content(plan)
    faults = wrong_id(content) if isinstance(content, dict) else []
    read, misread = read_plan(content)
    if unusable := misread or uncovered(read):
        return Verdict(faults + unusable)
    served, pairs = serve(read), present(read)
    faults += wrong_figures(read, served, pairs) + broken_rules(read, pairs)
    bounds, contradicted = certify(read, served, time_limit_s, on_bound)
    return Verdict(faults + contradicted, bounds)


def _content(plan: Any) -> Any:
    if isinstance(plan, str | PathLike):
        return json.loads(Path(plan).read_text("utf-8-sig"), object_pairs_hook=_single)
    if hasattr(plan, "model_dump_json"):
        return json.loads(plan.model_dump_json())
    return plan


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys come once: of two that say different things, which holds is anyone's."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)
