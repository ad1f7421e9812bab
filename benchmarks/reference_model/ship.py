"""Puts a trained model where HPLB ships it, with a model card made from what was recorded.

hplb evaluate --model RUN/model --profile P --methods dense --contexts ... -o RUN/dense.json
python -m benchmarks.reference_model.ship --run RUN --dense RUN/dense.json
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from profiles.catalogue import REFERENCE_FOLDER

MOST_BYTES = 15 * 10**6
SOLVED = 0.95

CARD = """---
license: apache-2.0
library_name: transformers
tags: [hplb, sparse-attention, synthetic]
---

# HPLB's reference model

A Llama of {parameters:,} parameters ({layers} layers, {heads} query heads and {kv_heads} KV heads
of {head_dim}, {words:,} tokens) that finds needles in contexts of up to 2,048 tokens. It exists so
that anyone can see HPLB measure, plan, run and evaluate a real model without a download. It is no
language model for any other use.

Trained from scratch by `python -m benchmarks.reference_model.train --minutes {asked:g}` on
generated tasks (`profiles/tasks`, split "train": RULER's types beside repeated words and pairs;
text is the docstrings of Python {python}'s standard library): {steps:,} steps of about 4,096
tokens, {minutes} minutes on {machine} ({threads}), torch {torch}. Contexts doubled from 64 to 2,048
tokens. The initial weights lean to the token before and to like tokens
(`benchmarks/reference_model/initial.py`); what did not converge without that is in its docstring.

## Accuracy of dense attention on held-out seeds

Share of answer words right, teacher-forced, {samples} samples a task and context (`{command}`):

{table}

Solved (at least {solved:.0%} at every context above): {solved_tasks}.
Not solved, with the worst context's accuracy: {open_tasks}.

## How this run went

{note}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--note", type=Path, help="How the run went, for the card.")
    chosen = parser.parse_args()
    dense = json.loads(chosen.dense.read_text())
    training = json.loads((chosen.run / "training.json").read_text())
    REFERENCE_FOLDER.mkdir(parents=True, exist_ok=True)
    for file in sorted((chosen.run / "model").iterdir()):
        shutil.copyfile(file, REFERENCE_FOLDER / file.name)
    shutil.copyfile(chosen.run / "training.json", REFERENCE_FOLDER / "training.json")
    note = chosen.note.read_text().strip() if chosen.note else "Nothing was changed on the way."
    (REFERENCE_FOLDER / "README.md").write_text(card(chosen.run / "model", training, dense, note))
    size = sum(file.stat().st_size for file in REFERENCE_FOLDER.iterdir())
    print(f"{REFERENCE_FOLDER}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 1e6:g} MB")


def card(model: Path, training: dict[str, Any], dense: dict[str, Any], note: str) -> str:
    """The model card: nothing in it that was not recorded by training or evaluation."""
    from safetensors import safe_open

    config = json.loads((model / "config.json").read_text())
    with safe_open(model / "model.safetensors", framework="np") as weights:
        parameters = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118
    lines = [line for line in dense["lines"] if line["method"] == "dense"]
    contexts = [line["context"] for line in lines]
    tasks = list(lines[0]["tasks"])
    worst = {task: min(line["tasks"][task] for line in lines) for task in tasks}
    rows = ["| task | " + " | ".join(f"{context:,}" for context in contexts) + " |"]
    rows.append("|---|" + "---|" * len(contexts))
    for task in tasks:
        rows.append(f"| {task} | " + " | ".join(f"{x['tasks'][task]:.3f}" for x in lines) + " |")
    rows.append("| average | " + " | ".join(f"{x['average']['value']:.3f}" for x in lines) + " |")
    perplexity = " | ".join(f"{x['perplexity']['value']:.1f}" for x in lines)
    rows.append(f"| perplexity, held-out docstrings | {perplexity} |")
    return CARD.format(
        parameters=parameters,
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        words=config["vocab_size"],
        asked=round(training["minutes"]),
        threads=training["threads"],
        **{key: training[key] for key in ("python", "steps", "minutes", "machine", "torch")},
        samples=dense["options"]["samples"],
        command=dense["command"],
        table="\n".join(rows),
        note=note,
        solved=SOLVED,
        solved_tasks=", ".join(t for t in tasks if worst[t] >= SOLVED) or "none",
        open_tasks=", ".join(f"{t} ({worst[t]:.2f})" for t in tasks if worst[t] < SOLVED) or "none",
    )


if __name__ == "__main__":
    main()
