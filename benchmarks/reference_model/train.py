"""Trains the reference model from scratch on two CPU cores.

python -m benchmarks.reference_model.train --out DIR [--minutes 90]

A checkpoint every few minutes: started again on the same DIR, it goes on.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.reference_model.batches import Batch, Batches
from benchmarks.reference_model.curriculum import Curriculum
from benchmarks.reference_model.initial import initialise
from benchmarks.reference_model.tokenizer import build

MUON_RATE, ADAM_RATE = 5e-3, 4e-3
WARMUP_STEPS = 100
COOL_DOWN = 0.25
SLOWEST = 0.02
CHECKPOINT_SECONDS = 120.0
LOG_STEPS = 50


@dataclass
class Progress:
    """What a checkpoint remembers beside weights and optimizers."""

    step: int = 0
    seconds: float = 0.0
    curriculum: Curriculum = field(default_factory=Curriculum)
    history: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        state = json.loads(text)
        return cls(**(state | {"curriculum": Curriculum(**state["curriculum"])}))


class Optimizers:
    """Muon (Jordan et al. 2024) for the matrices, AdamW for embeddings and norms.

    Muon took a third of AdamW's steps to the first repeated words here.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        named = list(model.named_parameters())
        matrices = [p for n, p in named if p.dim() == 2 and "embed" not in n]
        others = [p for n, p in named if p.dim() != 2 or "embed" in n]
        self._each = (
            torch.optim.Muon(
                matrices, lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
        )

    def step(self, rate: float) -> None:
        """One step at a share `rate` of the peak rates; clears the gradients."""
        for optimizer, peak in zip(self._each, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> list[dict[str, object]]:
        return [optimizer.state_dict() for optimizer in self._each]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        for optimizer, state in zip(self._each, states, strict=True):
            optimizer.load_state_dict(state)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """4 layers, 8 query heads and 4 KV heads of 32, about 2.2 million parameters."""
    model = LlamaForCausalLM(
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
    initialise(model)
    return model


def rate(done: float, step: int) -> float:
    """Share of the peak learning rate: warm up, stay, come down over the last of the time."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, max(SLOWEST, (1 - done) / COOL_DOWN))


def losses(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, dict[str, tuple[int, int]]]:
    """Mean loss of the targets, and (right, asked) per kind."""
    weight = batch.weight[:, 1:]
    row, place = weight.nonzero(as_tuple=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(batch.tokens, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[row, place]).float()
    target, counts = batch.tokens[row, place + 1], weight[row, place]
    each = nn.functional.cross_entropy(logits, target, reduction="none")
    hit = (logits.argmax(-1) == target) & (counts == 1)
    seen: dict[str, tuple[int, int]] = {}
    for index, kind in enumerate(batch.kinds):
        mine = (row == index) & (counts == 1)
        right, asked = seen.get(kind, (0, 0))
        seen[kind] = (right + int((hit & mine).sum()), asked + int(mine.sum()))
    return (each * counts).sum() / counts.sum(), seen


def train(out: Path, minutes: float, seed: int) -> Progress:
    """Train for so many minutes in all, over all starts; writes out/model at the end."""
    torch.manual_seed(seed)
    tokenizer = build()
    model = new_model(tokenizer)
    optimizers = Optimizers(model)
    progress = Progress()
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        progress = Progress.from_json(state["progress"])
        print(
            f"going on from step {progress.step}, {progress.seconds / 60:.0f} minutes", flush=True
        )
    batches = Batches(tokenizer, seed * 1_000_003 + progress.step)
    began, before = time.monotonic(), progress.seconds
    saved = began
    while progress.seconds < minutes * 60:
        done, at = progress.seconds / (minutes * 60), progress.curriculum
        batch = batches.draw(at.length_at(progress.step), at.shares, at.words, at.period)
        loss, seen = losses(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(rate(done, progress.step))
        progress.step += 1
        progress.seconds = before + time.monotonic() - began
        at.saw(seen, done, batches.words)
        if progress.step % LOG_STEPS == 0:
            progress.history.append(_line(progress, float(loss.detach())))
            print(json.dumps(progress.history[-1]), flush=True)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            save(model, optimizers, progress, checkpoint)
    save(model, optimizers, progress, checkpoint)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    return progress


def _line(progress: Progress, loss: float) -> dict[str, object]:
    at = progress.curriculum
    return {
        "step": progress.step,
        "minutes": round(progress.seconds / 60, 2),
        "length": at.length,
        "words": at.words,
        "loss": round(loss, 3),
        "right": {kind: round(value, 3) for kind, value in sorted(at.right.items())},
    }


def save(model: LlamaForCausalLM, optimizers: Optimizers, progress: Progress, path: Path) -> None:
    """Write beside, then rename: an interruption never leaves half a checkpoint."""
    state = {
        "model": model.state_dict(),
        "optimizers": optimizers.state_dict(),
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
        "threads": f"{chosen.threads} threads",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "history": progress.history,
    }
    (chosen.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
