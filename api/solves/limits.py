"""How much one request may ask of the service, and what of it is quick."""

from dataclasses import dataclass

from api.problems import bad_field
from solver.request import PlanRequest

QUICK_METHODS = frozenset({"contiguous", "snake", "greedy", "greedy_equal"})
QUICK_LIMIT_S = 1.0
QUICK_SIZE = 2**18


@dataclass(frozen=True)
class SolveLimits:
    """The longest time limit, and the most (workload, layer, head, device) combinations."""

    time_limit_s: float
    size: int

    def check(self, request: PlanRequest) -> None:
        """Raises Problem: 422 where a resolved request is above a limit, which it names."""
        if request.time_limit_s > self.time_limit_s:
            raise bad_field(
                "time_limit_s",
                f"{request.time_limit_s:g} is above this service's {self.time_limit_s:g} "
                "(HPLB_MAX_TIME_LIMIT_S)",
            )
        size = size_of(request)
        if size > self.size:
            raise bad_field(
                "devices" if request.gpus is None else "gpus",
                f"{size} combinations of workload, layer, head and device are more than this "
                f"service's {self.size} (HPLB_MAX_SOLVE_SIZE)",
            )


def size_of(request: PlanRequest) -> int:
    """Combinations of workload, layer, head and device of a resolved request."""
    shape = request.profiles[0].architecture
    devices = len(request.device_types)
    return len(request.steps) * shape.layers * shape.query_heads * devices


def is_quick(request: PlanRequest) -> bool:
    """Whether a resolved request takes about a second at most: it need not wait for searches."""
    searches = request.placement.memory is not None or request.placement.slots is not None
    placed_at_once = request.method in QUICK_METHODS and not searches
    short = placed_at_once or request.time_limit_s <= QUICK_LIMIT_S
    return short and size_of(request) <= QUICK_SIZE
