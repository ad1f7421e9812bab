"""Ranks begin with another map at one step, whenever each hears of it."""

import json
from pathlib import Path

import torch.distributed as dist
from torch.multiprocessing import start_processes

from executor.engines.vllm.agreement import Agreement
from tests.forked import forked

RANKS, STEPS = 3, 40
HEARS = [{3: "a", 20: "b"}, {9: "a", 17: "b", 30: "c"}, {5: "a", 26: "b", 28: "c"}]
"""By rank, the step from which it is ready for a map: rank 0 never hears of c."""


def test_no_rank_switches_alone(tmp_path: Path) -> None:
    forked()
    start_processes(_serves, (tmp_path,), RANKS, start_method="forkserver")
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(RANKS)]
    assert found[0] == found[1] == found[2]
    # All hear of a by step 9, of b by step 26; rank 0 alone would have gone to b at 20.
    assert found[0] == {"9": "a", "26": "b"}


def _serves(rank: int, out: Path) -> None:
    dist.init_process_group("gloo", f"file://{out}/store", rank=rank, world_size=RANKS)
    agreement, ready, serves, switched = Agreement(RANKS, dist.group.WORLD), None, None, {}
    for step in range(STEPS):
        ready = HEARS[rank].get(step, ready)
        if agreement.on(None if ready == serves else ready):
            serves = ready
            switched[step] = ready
    (out / str(rank)).write_text(json.dumps(switched))
    dist.destroy_process_group()


def test_one_rank_needs_nobody() -> None:
    agreement = Agreement(1, None)
    assert not agreement.on(None)
    assert agreement.on("a")
