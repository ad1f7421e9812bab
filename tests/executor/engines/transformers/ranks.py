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
    return {"logits": torch.cat(logits), "tokens": made}


def main(folder: Path) -> None:
    import torch.distributed as dist
    from transformers.distributed import DistributedConfig

    import executor.engines.transformers  # noqa: F401 (makes "hplb" known)
    from executor.engines.transformers.slots import attach_slots

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    stock = DistributedConfig(tp_size=dist.get_world_size(), tp_plan="auto")
    model = loaded(folder / "out", distributed_config=stock, attn_implementation="hplb")
    attach_slots(model, folder / "out")
    torch.save(computed(model), folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
