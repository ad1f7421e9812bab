"""Trains the reference model from scratch on two CPU cores.

python -m benchmarks.reference_model.train --out DIR [--minutes 90]

Contexts double when the retrieval tasks are solved at a length, or when that length's share of
the time is spent. A checkpoint every few minutes: started again on the same DIR, it goes on.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.reference_model.batches import COPY, SHARES, Batch, Batches
from benchmarks.reference_model.tokenizer import build

LENGTHS = (128, 256, 512, 1024, 2048)
# Share of the time by whose end each length must be left.
LEAVE_BY = (0.30, 0.42, 0.55, 0.72, 1.0)
SOLVED = 0.97
RETRIEVAL = ("niah_multikey_2", "niah_multikey_3", "niah_multiquery")
PEAK_RATE = 2e-3
WARMUP_STEPS = 100
COOL_DOWN = 0.25
CHECKPOINT_SECONDS = 180.0
LOG_STEPS = 50
FORGET = 0.98


@dataclass
class Progress:
    """What a checkpoint remembers beside weights and optimizer."""

    step: int = 0
    stage: int = 0
    seconds: float = 0.0
    right: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, object]] = field(default_factory=list)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """4 layers, 8 query heads and 4 KV heads of 32, about 2.2 million parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            attn_implementation="sdpa",
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def rate(progress: float, step: int) -> float:
    """Learning rate: warm up, stay, come down over the last quarter of the time."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_RATE * warm * min(1.0, max(0.02, (1 - progress) / COOL_DOWN))


def losses(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, dict[str, tuple[int, int]]]:
    """Mean loss of the targets, and (right, asked) per kind; logits only where there is a target."""
    weight = batch.weight[:, 1:]
    row, place = weight.nonzero(as_tuple=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(batch.tokens, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[row, place]).float()
    target, counts = batch.tokens[row, place + 1], weight[row, place]
    each = F.cross_entropy(logits, target, reduction="none")
    hit = (logits.argmax(-1) == target) & (counts == 1)
    seen: dict[str, tuple[int, int]] = {}
    for index, kind in enumerate(batch.kinds):
        mine = (row == index) & (counts == 1)
        right, asked = seen.get(kind, (0, 0))
        seen[kind] = (right + int((hit & mine).sum()), asked + int(mine.sum()))
    return (each * counts).sum() / counts.sum(), seen


def shares(stage: int) -> dict[str, float]:
    """Repetition and plain pairs first: they make the heads that all other tasks build on."""
    if stage == 0:
        return SHARES | {COPY: 3 * SHARES[COPY], "niah_multikey_2": 2 * SHARES["niah_multikey_2"]}
    return SHARES | {COPY: SHARES[COPY] / stage}


def train(out: Path, minutes: float, seed: int) -> Progress:
    torch.manual_seed(seed)
    tokenizer = build()
    model = new_model(tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    progress = Progress()
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**json.loads(state["progress"]))
        print(f"going on from step {progress.step}, {progress.seconds / 60:.0f} minutes", flush=True)
    batches = Batches(tokenizer, seed * 1_000_003 + progress.step)
    began, before = time.monotonic(), progress.seconds
    saved = logged = began
    while progress.seconds < minutes * 60:
        done = progress.seconds / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = rate(done, progress.step)
        batch = batches.draw(LENGTHS[progress.stage], shares(progress.stage))
        loss, seen = losses(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.step += 1
        progress.seconds = before + time.monotonic() - began
        for kind, (right, asked) in seen.items():
            old = progress.right.get(kind, 0.0)
            progress.right[kind] = old + (1 - FORGET) * (right / max(1, asked) - old)
        worst = min(progress.right.get(kind, 0.0) for kind in RETRIEVAL)
        last = progress.stage == len(LENGTHS) - 1
        if not last and (worst >= SOLVED or done >= LEAVE_BY[progress.stage]):
            progress.stage += 1
            progress.right = {kind: value - 0.1 for kind, value in progress.right.items()}
        if progress.step % LOG_STEPS == 0:
            line = {
                "step": progress.step,
                "minutes": round(progress.seconds / 60, 2),
                "length": LENGTHS[progress.stage],
                "loss": round(float(loss.detach()), 3),
                "right": {kind: round(value, 3) for kind, value in progress.right.items()},
            }
            progress.history.append(line)
            print(json.dumps(line), flush=True)
            logged = time.monotonic()
        if logged - saved > CHECKPOINT_SECONDS:
            saved = logged
            save(model, optimizer, progress, checkpoint)
    save(model, optimizer, progress, checkpoint)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    return progress


def save(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, progress: Progress, path: Path
) -> None:
    """Write beside, then rename: an interruption never leaves half a checkpoint."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": json.dumps(asdict(progress)),
    }
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    os.replace(beside, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    progress = train(chosen.out, chosen.minutes, chosen.seed)
    record = {
        "minutes": round(progress.seconds / 60, 1),
        "steps": progress.step,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "history": progress.history,
    }
    (chosen.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
