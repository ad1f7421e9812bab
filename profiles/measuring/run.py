"""A model and prompts become a profile of recovery curves."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from profiles.errors import MeasuringError
from profiles.measurement import Measurement
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item, items
from profiles.measuring.layer_progress import LayerProgress
from profiles.measuring.loading import Loaded, load
from profiles.measuring.parts import Parts
from profiles.measuring.prompt_run import Arrays, PromptRun, Told
from profiles.measuring.selector import Selector
from profiles.measuring.statistics import curves_form, stability
from profiles.model import ModelProfile, as_name
from profiles.tasks.documents import digest_at, prompts_at
from profiles.time_left import Show
from profiles.versions import versions

PACKAGES = ("hplb", "torch", "transformers")
"""What computes the figures."""


def measure_profile(
    choices: Choices, name: str, parts: Parts, selector: Selector | None, progress: Show
) -> ModelProfile:
    """Measure, or go on measuring from `parts`, which stay until they are removed.

    Raises MeasuringError, and ProfileError for prompts or a config.json that cannot be read.
    """
    prompts = prompts_at(choices.data)
    data_sha256 = digest_at(choices.data)
    loaded = load(choices)
    todo = items(prompts, loaded.tokenizer, choices)
    parts.open(_record(choices, loaded, data_sha256, selector))
    budgets = dict(zip(choices.contexts, choices.budgets(), strict=True))
    run = PromptRun(loaded, choices, budgets, selector)
    done: list[tuple[Item, Arrays]] = []
    told = LayerProgress(run, todo, progress)
    for item in todo:
        told.begin(item)
        arrays = parts.load(item.name)
        if arrays is None:
            started = perf_counter()
            arrays = _measured(run, item, told)
            arrays["seconds"] = np.array(perf_counter() - started)
            parts.save(item.name, arrays)
        told.end(float(arrays["seconds"]))
        done.append((item, arrays))
    told.done()
    prompts_of = {task: set[int]() for task in sorted({item.task for item in todo})}
    for item in todo:
        prompts_of[item.task].add(item.number)
    return ModelProfile(
        name=name,
        architecture=loaded.architecture,
        heads=curves_form(done, choices),
        selection=choices.selection,
        source=(
            f"measured by hplb: {choices.model} on {choices.data.name}, {choices.dtype} on "
            f"{choices.device}"
        ),
        synthetic=False,
        measurement=Measurement(
            model=choices.model,
            weights_sha256=loaded.weights_sha256,
            data_sha256=data_sha256,
            prompts={task: len(numbers) for task, numbers in prompts_of.items()},
            rows=choices.rows,
            seed=choices.seed,
            block_tokens=choices.block_tokens,
            piece_tokens=choices.piece,
            sink_tokens=choices.oracle_sink_tokens,
            local_tokens=choices.oracle_local_tokens,
            versions=versions(*PACKAGES),
            seconds=float(sum(arrays["seconds"] for _, arrays in done)),
            stability=stability(done, choices),
        ),
    )


def name_of(model: str) -> str:
    """A profile's name from a model's folder or hub id.

    >>> name_of("meta-llama/Llama-3.1-8B")
    'Llama-3.1-8B'
    """
    last = Path(model).resolve().name if Path(model).is_dir() else model.rpartition("/")[2]
    return as_name(last) or "measured"


def _measured(run: PromptRun, item: Item, told: Told) -> Arrays:
    try:
        return run.measure(item, told)
    except MeasuringError as error:
        raise MeasuringError(
            f"{run.choices.data}: prompt {item.number + 1} ({item.task}) at {item.context_tokens} "
            f"tokens: {error}"
        ) from None


def _record(
    choices: Choices, loaded: Loaded, data_sha256: str, selector: Selector | None
) -> dict[str, Any]:
    """Everything a part depends on, as JSON reads it back."""
    return {
        **asdict(choices),
        "data": data_sha256,
        "contexts": list(choices.contexts),
        "selection": choices.selection.model_dump(mode="json"),
        "weights": loaded.weights_sha256,
        "selector": selector is not None,
        "versions": versions(*PACKAGES),
    }
