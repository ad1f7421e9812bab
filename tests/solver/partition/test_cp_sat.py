"""CP-SAT on what the record leaves open."""

import numpy as np
import pytest

from solver.partition.cp_sat import raise_and_lower
from solver.partition.greedy import longest_processing_time
from solver.partition.problem import PartitionProblem
from solver.partition.record import Record
from tests.solver.partition.helpers import equal_counts, ints, optimum
from tests.solver.problems import soon


@pytest.mark.parametrize("counted", [False, True])
def test_it_closes_small_instances(counted: bool) -> None:
    random = np.random.default_rng(5)
    for _ in range(6):
        jobs = random.integers(1, 40, 7).tolist()
        counts = equal_counts(7, 3) if counted else None
        problem = PartitionProblem(np.array(jobs), 3, ints(counts))
        record = Record(problem, longest_processing_time(problem), 0.0, None)
        raise_and_lower(record, 10.0, 1, 0, soon())
        assert record.makespan == record.lower_bound == optimum(jobs, 3, counts)
        assert problem.allows(record.machine_of)
