"""What every rank of test_ranks.py computes; `main` is one of them, started by `launch`."""

import resource
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

VOCABULARY = 89
TENSORS, TENSOR_BYTES = 4, 1 << 26


def loaded(folder: Path, **options: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def computed(model: Any) -> dict[str, torch.Tensor]:
    """Logits of a prompt in chunks that begin inside blocks, with decodes behind; what a batch of
    unlike sequences, padded, goes on with."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(1, VOCABULARY, (1, 203), generator=generator)
    cache, logits, begin = None, [], 0
    for size in (90, 110, 1, 1, 1):
        step = model(ids[:, begin : begin + size], past_key_values=cache, use_cache=True)
        cache, begin = step.past_key_values, begin + size
        logits.append(step.logits[0])
    batch = torch.randint(1, VOCABULARY, (3, 130), generator=generator)
    mask = torch.ones_like(batch)
    mask[0, :70] = 0
    mask[2, :128] = 0
    made = model.generate(
        batch, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    return {"logits": torch.cat(logits), "tokens": made, "shared": _sharing(model)}


def _sharing(model: Any, requests: int = 32) -> torch.Tensor:
    """Logits of requests behind one prefix, whose keys all have: a chunk each, and decodes."""
    generator = torch.Generator().manual_seed(6)
    prefix = torch.randint(1, VOCABULARY, (1, 75), generator=generator)
    own = torch.randint(1, VOCABULARY, (requests, 9), generator=generator)
    cache = model(prefix, use_cache=True).past_key_values
    cache.batch_repeat_interleave(requests)
    logits = [model(ids, past_key_values=cache).logits for ids in own.split([6, 1, 1, 1], 1)]
    return torch.cat(logits, 1)


@torch.no_grad()
def chunks(model: Any) -> dict[str, torch.Tensor]:
    """Logits of a prompt in chunks, without decodes."""
    ids = torch.randint(1, VOCABULARY, (1, 300), generator=torch.Generator().manual_seed(7))
    first = model(ids[:, :170], use_cache=True)
    second = model(ids[:, 170:], past_key_values=first.past_key_values)
    return {"logits": torch.cat([first.logits, second.logits], 1)}


def faulted() -> int:
    """Pages that the system handed out for TENSORS as large as some that were freed before."""
    before = 0
    for number in range(4 * TENSORS):
        if number == 3 * TENSORS:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(TENSOR_BYTES // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main(folder: Path) -> None:
    """Every case in a folder of its own: what it says that is computed, by a checkpoint with the
    plan in it or, from an ordinary one, by the plan; or why it is refused."""
    import torch.distributed as dist

    from executor.engines.transformers.attach import attach
    from executor.engines.transformers.parts import load_held, load_part
    from executor.engines.transformers.rank import among_ranks
    from executor.engines.transformers.slots import attach_slots
    from executor.errors import AttentionError
    from executor.weights import checkpoint
    from solver.plans import Plan

    read: dict[str, int] = {}
    checkpoint.safe_open = lambda file, framework: Counting(file, framework, read)
    with among_ranks() as rank:
        (folder.parent / f"{folder.name}.{rank}").write_text(str(faulted()))
        for case in sorted(folder.iterdir()):
            computes = {"computed": computed, "chunks": chunks}[(case / "computes").read_text()]
            read.clear()
            if (case / "plan.json").exists():
                model, policy = load_held(case / "model", Plan.load(case / "plan.json"))
                attach(model, policy)
            else:
                try:
                    model = load_part(case / "applied")
                except AttentionError as error:
                    torch.save(str(error), case / f"{rank}.pt")
                    continue
                attach_slots(model, case / "applied")
            found = computes(model)
            shapes = {name: tuple(each.shape) for name, each in model.named_parameters()}
            torch.save((found, shapes, dict(read)), case / f"{rank}.pt")
            dist.barrier()


class Counting:
    """Safetensors' reader, and the bytes that are read of every tensor."""

    def __init__(self, file: Path, framework: str, read: dict[str, int]) -> None:
        self._reader, self._read = safe_open(file, framework), read

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(self, *why: object) -> None:
        self._reader.__exit__(*why)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def get_slice(self, name: str) -> "CountedSlice":
        return CountedSlice(self._reader.get_slice(name), name, self._read)


class CountedSlice:
    def __init__(self, part: Any, name: str, read: dict[str, int]) -> None:
        self._part, self._name, self._read = part, name, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __getitem__(self, at: Any) -> torch.Tensor:
        found = self._part[at]
        self._read[self._name] = self._read.get(self._name, 0) + found.nbytes
        return found
