"""The independent verifier: what a plan claims, checked again from its JSON alone.

Form, shapes, coverage, rules, loads of every workload, makespans, figures, bytes and the content's
id are recomputed from the costs the plan carries; a bound with a plain proof is recomputed too.
What it cannot check: other bounds (`unchecked_bounds` counts them), that the costs follow from the
budgets by some rates, that recoveries, replicas and other placements are as said, and the words in
`reason`, `stock_reason` and `warnings`.

Shares no code with the solvers, and uses plain Python where they use arrays, so that a mistake in
one is not repeated in the other.
"""

from typing import Any

from solver.verify import certificate
from solver.verify.beside import beside
from solver.verify.cover import cover, divisions
from solver.verify.fields import Json, read_plan
from solver.verify.held import copies, memory, present
from solver.verify.identity import identity
from solver.verify.loads import serve
from solver.verify.rules import rules
from solver.verify.shapes import shapes
from solver.verify.totals import totals

__all__ = ["unchecked_bounds", "verify"]


def verify(plan: Json) -> list[str]:
    """Every violation found, in words; an empty list means the plan keeps its promises."""
    faults = identity(plan) if isinstance(plan, dict) else []
    read, misread = _read(plan)
    if misread:
        return faults + misread
    uncovered = cover(read)
    if uncovered:
        return faults + uncovered
    served, pairs = serve(read), present(read)
    return [
        *faults,
        *certificate.layers(read, served),
        *totals(read, served),
        *rules(read, pairs),
        *divisions(read),
        *copies(read, pairs),
        *memory(read, pairs),
        *beside(read, pairs),
    ]


def unchecked_bounds(plan: Json) -> int:
    """Layers whose bound `verify` took as it is, for a plan in which it found no fault.

    Those bounds were proved by search, or by a proof that is not recomputed here.
    """
    return certificate.unchecked(_read(plan)[0])


def _read(plan: Any) -> tuple[Json, list[str]]:
    faults: list[str] = []
    read = read_plan(plan, faults)
    return read, faults or shapes(read)
