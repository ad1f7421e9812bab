"""Measuring what the heads of a transformers model need: the one part of `profiles` with torch."""

import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from profiles.errors import MeasuringError
from profiles.model import NAME_PATTERN, ModelProfile
from profiles.selection import Selection
from profiles.time_left import Show


def measure(
    model: str | Path,
    data: str | Path,
    contexts: Sequence[int],
    *,
    block_tokens: int = 64,
    piece_tokens: int | None = None,
    rows: int = 64,
    prompts: int | None = None,
    seed: int = 0,
    selection: str | Selection = "sampled",
    sink_tokens: int | None = None,
    local_tokens: int | None = None,
    gradients: bool = False,
    name: str | None = None,
    state: str | Path | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    progress: Show | None = None,
) -> ModelProfile:
    """Recovery curves of a transformers model's heads, as S-HPLB draws them (arXiv 2603.10353).

        profile = measure("my-model/", "prompts.jsonl", contexts=[1024, 4096])
        profile.save("my-model.json")

    model: a folder of transformers, a Hugging Face id, a name of `hplb models list` that was
    fetched, or "reference", which is shipped.
    data: prompts as JSON lines, each with at least a `text` (`hplb profiles prompts` makes some), a
    plain text, or a folder of either (`profiles.tasks.documents`).
    contexts: in tokens, rising; a prompt is measured at those that it is long enough for.
    block_tokens: the query rows that share a list of keys, 16, 32, 64 or 128.
    piece_tokens: the keys of a list's piece, which divide a block; a block unless given.
    rows: how many query rows of a prompt are looked at, drawn by `seed`.
    prompts: the most of a task at a context; all unless given.
    selection: how the executor chooses pieces: "sampled", "pooled", "vertical_slash", "sink_local",
    or one of `profiles.selection`. What it recovers is measured beside what the best pieces would;
    where no executor is installed that is left out, with a warning.
    sink_tokens, local_tokens: the first and nearest tokens that are always in; a piece and a block
    unless given.
    gradients: whether to weigh budgets' errors by the loss' gradient too, at the shortest context;
    a backward pass more for each of its prompts, and the memory for it.
    name: the profile's; the model's unless given.
    state: a folder that keeps what is finished, so that the same call goes on where it was stopped;
    nothing is kept unless given.
    device, dtype: "cpu", "cuda" or "cuda:N"; float32 on a CPU and bfloat16 on CUDA unless given.
    threads: of the CPU, for this process from then on; as many as torch takes unless given.
    progress: called with layers of prompts done, of how many, and what comes next, time left
    included.

    Loads torch and transformers, which nothing else here does. Raises MeasuringError for choices
    that make no sense, a model that cannot be measured, where either is not installed, and for
    gradients where no executor is;
    ProfileError for prompts or a config.json that cannot be read.
    """
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise MeasuringError(
            "measuring a model needs torch and transformers: pip install hplb[executor]"
        )
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise MeasuringError(
            f"name: {name!r} must be letters, digits, '.', '_' or '-', at most 128"
        )

    if threads is not None and threads < 1:
        raise MeasuringError(f"threads: {threads} must be at least 1")

    # They take seconds to load: the planner does without.
    import torch

    from profiles.measuring.choices import Choices, selection_of
    from profiles.measuring.loading import dtype_for
    from profiles.measuring.parts import Parts
    from profiles.measuring.run import measure_profile, name_of
    from profiles.measuring.selector import installed_selector

    if threads is not None:
        torch.set_num_threads(threads)
    if isinstance(selection, str):
        piece = piece_tokens or block_tokens
        selection = selection_of(selection, piece if sink_tokens is None else sink_tokens)
    choices = Choices(
        model=str(model),
        data=Path(data),
        contexts=tuple(contexts),
        block_tokens=block_tokens,
        rows=rows,
        prompts=prompts,
        seed=seed,
        selection=selection,
        sink_tokens=sink_tokens,
        local_tokens=local_tokens,
        gradients=gradients,
        device=device,
        dtype=dtype or dtype_for(device),
        piece_tokens=piece_tokens,
    )
    selector = installed_selector()
    if selector is None and gradients:
        raise MeasuringError(
            "gradients: no executor is installed, whose selector chooses what a budget leaves out: "
            "pip install hplb[executor]"
        )
    if selector is None:
        warnings.warn("no executor is installed: selected_recovery is left out", stacklevel=2)
    with TemporaryDirectory() as nowhere:
        return measure_profile(
            choices,
            name or name_of(str(model)),
            Parts(Path(nowhere if state is None else state)),
            selector,
            progress or (lambda *_: None),
        )
