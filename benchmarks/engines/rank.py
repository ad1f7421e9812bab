"""One rank of the benchmark, started by `executor.engines.transformers.launch`."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.engines.calibration import Calibration, Timed
from executor.engines.transformers.attach import attached
from executor.engines.transformers.parts import load_held, load_part
from executor.engines.transformers.rank import among_ranks
from executor.engines.transformers.slots import slot_policy
from executor.evaluation.scoring import mean_nats
from executor.evaluation.texts import scored_tokens
from executor.inference.listed_policy import ListedPolicy
from executor.inference.policy import Policy
from executor.inference.timed_policy import TimedPolicy
from executor.weights.execution_map import ExecutionMap
from profiles.time_left import TimeLeft
from solver.plans import Plan

WARM_TOKENS = 256
LISTED_TOKENS = 2048


@dataclass(frozen=True)
class Job:
    """Rows by name, each the folder of its weights and that of its map, or the file of its plan,
    which is carried out without padding; a round reads a window. Before every row of it a part is
    timed of what the plans in the files `probes` give the ranks.

    No further round is begun that would end after `until` (seconds since the epoch) if it took as
    long as the one before. Then the row `listed` says which pieces it chose.
    """

    rows: dict[str, tuple[str, str]]
    probes: list[str]
    windows: list[list[int]]
    until: float
    listed: str


@dataclass(frozen=True)
class Prefill:
    """One rank's prefill of a window: `attention_s` [layers] seconds that it had the core, `wall_s`
    of all until the hidden states of the last layer, `nats` a token of the window's end."""

    row: str
    round: int
    attention_s: list[float]
    wall_s: float
    nats: float


@dataclass(frozen=True)
class Measured:
    """What a rank did, what it timed between, and its lists of one row: (layer, the model's head,
    block, checksum)."""

    prefills: list[Prefill]
    timed: list[Timed]
    lists: list[tuple[int, int, int, int]]


@torch.inference_mode()
def measure(job: Job, say: Callable[[str], None]) -> Measured:
    """Every row in turn, round by round; then the lists."""
    models: dict[str, Any] = {}
    policies: dict[str, tuple[Any, Policy]] = {}
    for name, (weights, of) in job.rows.items():
        if Path(of).is_file():
            policies[name] = load_held(Path(weights), Plan.load(of))
            continue
        if weights not in models:
            models[weights] = load_part(Path(weights))
        policies[name] = models[weights], slot_policy(models[weights], Path(of))
    for name, (model, policy) in policies.items():
        _prefill(name, 0, model, policy, job.windows[0][:WARM_TOKENS])
    probes = [Plan.load(each) for each in job.probes]
    calibration = Calibration(probes, len(policies), [dist.get_rank()])
    timed: list[Timed] = []
    found, left = [], TimeLeft(len(job.windows) * len(policies))
    for number, ids in enumerate(job.windows):
        began = time.time()
        for place, (name, (model, policy)) in enumerate(policies.items()):
            timed += calibration.time(number, place)
            found.append(_prefill(name, number, model, policy, ids))
            left.done(1, found[-1].wall_s)
            what = f"{len(ids):,} tokens, round {number + 1}: {name}, {found[-1].wall_s:.1f} s"
            say(left.after(f"{what}; {len(job.windows)} rounds"))
        if not _agreed(2 * time.time() - began <= job.until):
            break
    _, folder = job.rows[job.listed]
    return Measured(found, timed, _lists(*policies[job.listed], Path(folder), job.windows[0]))


def _prefill(name: str, number: int, model: Any, policy: Policy, ids: list[int]) -> Prefill:
    timed = TimedPolicy(policy, model.config.num_hidden_layers)
    tokens, scored = torch.tensor([ids]), scored_tokens(len(ids))
    dist.barrier()
    with attached(model, timed):
        began = time.perf_counter()
        hidden = model.base_model(tokens).last_hidden_state
        wall_s = time.perf_counter() - began
    logits = model.get_output_embeddings()(hidden[0, -scored - 1 : -1])
    return Prefill(name, number, timed.prompt_s, wall_s, mean_nats(logits, ids[-scored:]))


def _lists(
    model: Any, policy: Policy, folder: Path, ids: list[int]
) -> list[tuple[int, int, int, int]]:
    """What this rank's slots chose in a window's first tokens."""
    layout = ExecutionMap.load(folder).layout
    found = lists_of(model, policy, ids)
    heads = [layout.heads(layer, [dist.get_rank()]) for layer in range(len(layout.layers))]
    return [
        (layer, head, block, checksum)
        for (layer, slot, block), checksum in found.items()
        for head in [heads[layer][slot]]
        if head is not None
    ]


@torch.inference_mode()
def lists_of(model: Any, policy: Policy, ids: list[int]) -> dict[tuple[int, int, int], int]:
    """Checksums of the lists that a model's heads choose in a window's first tokens."""
    listed = ListedPolicy(policy)
    with attached(model, listed):
        model.base_model(torch.tensor([ids[:LISTED_TOKENS]]))
    return listed.lists


def _agreed(mine: bool) -> bool:
    """What the first rank thinks: all of them must do the same."""
    said = [mine]
    dist.broadcast_object_list(said)
    return said[0]


def main(job: Path, out: Path) -> None:
    """`job` is the JSON of a `Job`, `out` the folder to which this rank writes that of a
    `Measured`."""
    with among_ranks() as rank:

        def say(words: str) -> None:
            if rank == 0:
                print(words, flush=True)

        made = measure(Job(**loads(job.read_text())), say)
        (out / f"{rank}.json").write_text(dumps(asdict(made)))
