"""One rank of `hplb run`, started by `launch`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from executor.engines.transformers.attach import attach
from executor.engines.transformers.parts import load_held, load_part
from executor.engines.transformers.slots import slot_policy
from executor.inference.timed_policy import TimedPolicy
from solver.plans import Plan


@dataclass(frozen=True)
class Request:
    """A prompt's tokens, and how many to go on with, greedily."""

    tokens: list[int]
    new_tokens: int


@dataclass(frozen=True)
class RankRun:
    """The tokens that followed, and seconds of attention [layers] on this rank."""

    tokens: list[int]
    prompt_s: list[float]
    decode_s: list[float]


@contextmanager
def among_ranks() -> Iterator[int]:
    """This process as a rank of those that torchrun started, by its number; one thread each.

    They speak gloo on CPUs, NCCL where there are GPUs.
    """
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def generate(folder: Path, request: Request, plan: Plan | None = None) -> RankRun:
    """Load this rank's part of a checkpoint, by the plan in it or by `plan`, and go on with the
    prompt."""
    model: Any
    if plan is None:
        model = load_part(folder)
        mine = slot_policy(model, folder)
    else:
        model, mine = load_held(folder, plan)
    policy = TimedPolicy(mine, model.config.num_hidden_layers)
    attach(model, policy)
    ids = torch.tensor([request.tokens], device=model.device)
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.new_tokens,
        do_sample=False,
    )
    return RankRun(made[0, len(request.tokens) :].tolist(), policy.prompt_s, policy.decode_s)


def main(folder: Path, request: Path, out: Path, plan: Path | None = None) -> None:
    """Compute a request and write what this rank found.

    `folder` is a checkpoint with a plan in it, or without, and then `plan` is one's JSON; `request`
    is the JSON of a `Request`, `out` the folder to which this rank writes the JSON of a `RankRun`.
    """
    with among_ranks() as rank:
        asked = Request(**loads(request.read_text()))
        made = generate(folder, asked, None if plan is None else Plan.load(plan))
        (out / f"{rank}.json").write_text(dumps(asdict(made)))
