"""What every rank of test_slots.py computes; as a script, one of them, started by torchrun."""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

VOCABULARY = 89


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


def main(folder: Path) -> None:
    """What `computed` says of the covering plan, and `chunks` of the sparse one."""
    import torch.distributed as dist
    from transformers.distributed import DistributedConfig

    import executor.engines.transformers  # noqa: F401 (makes "hplb" known)
    from executor.engines.transformers.slots import attach_slots

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    stock = DistributedConfig(tp_size=dist.get_world_size(), tp_plan="auto")
    for name, of in (("covering", computed), ("sparse", chunks)):
        model = loaded(folder / name, distributed_config=stock, attn_implementation="hplb")
        attach_slots(model, folder / name)
        torch.save(of(model), folder / f"{name}{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
