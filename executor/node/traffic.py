"""Traffic: prompts run through a model, whose layers' q, K and V are taken on the way."""

from collections.abc import Iterator, Sequence
from itertools import cycle

import torch
import transformers
from transformers import AutoModel

from executor.errors import CannotMeasureError
from executor.node.activations import Activations
from executor.node.free_memory import free_bytes
from profiles.architecture import Architecture
from profiles.config_json import architecture_from_config
from profiles.cost.work import Workload
from profiles.errors import MeasuringError
from profiles.measuring import capture
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.loading import (
    dtype_for,
    folder_of,
    from_folder,
    most_tokens,
    require_tensors,
)
from profiles.tasks.beginning import beginning, cut
from profiles.tasks.prompts import Prompt

Taken = dict[int, list[Activations]]
Kept = tuple[list[list[int]], list[int], dict[int, Activations]]
"""Sequences, layers, and what the one made of the other."""


class Traffic:
    """A model, and prompts that come again from the first when all have been."""

    def __init__(self, model: str, prompts: Sequence[Prompt], accelerator: str) -> None:
        """`model` is a folder or a name on the hub.

        Raises HplbError where it is neither, is not whole, or makes no tokens of the prompts.
        """
        folder = folder_of(model)
        self.architecture = architecture_from_config(folder / "config.json")
        # It reports weights that attention does not need, such as the output layer's.
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        dtype = getattr(torch, dtype_for(accelerator))
        options = {"dtype": dtype, "attn_implementation": capture.NAME}
        try:
            loaded, self._tokenizer = from_folder(model, folder, AutoModel, **options)
        except MeasuringError as error:
            raise CannotMeasureError(f"--model {error}") from None
        self._name, self._accelerator = model, accelerator
        self._model = loaded.to(accelerator).eval()
        require_tensors(f"--model {model}", self._model, self.architecture)
        ids = [self._tokenizer(prompt.whole, verbose=False)["input_ids"] for prompt in prompts]
        if not any(ids):
            raise CannotMeasureError(f"--model {model}: its tokenizer makes nothing of the prompts")
        self._prompts: Iterator[list[int]] = cycle(ids)
        self._begun = beginning(self._tokenizer)
        self._kept: Kept | None = None

    @torch.no_grad()
    def next_round(
        self, architecture: Architecture, workload: Workload, layers: Sequence[int]
    ) -> dict[int, Activations]:
        """The layers' activations over the next prompts, `batch_size` sequences in a row.

        The same prompts again, as where there is but one, are not run through the model again.
        Raises CannotMeasureError for a plan of another shape, a context that the model or the
        memory cannot hold, and attention that is not causal over all tokens.
        """
        self._check_shape(architecture, workload)
        ids = [self._sequence(workload.context_tokens) for _ in range(workload.batch_size)]
        if self._kept is None or self._kept[:2] != (ids, list(layers)):
            self._kept = None
            self._check_memory(workload, len(layers))
            self._kept = ids, list(layers), self._run(ids, layers)
        return self._kept[2]

    def _run(self, sequences: list[list[int]], layers: Sequence[int]) -> dict[int, Activations]:
        taken: Taken = {layer: [] for layer in layers}

        def watch(call: LayerAttention, _out: torch.Tensor) -> None:
            if call.layer in taken:
                taken[call.layer].append(_activations(call))

        with capture.watching(watch):
            for ids in sequences:
                self._model(torch.tensor([ids], device=self._accelerator), use_cache=False)
        return {layer: _joined(each) for layer, each in taken.items()}

    def _sequence(self, tokens: int) -> list[int]:
        """Prompts one after another until the context is full, the last one's end kept.

        What is too long is cut at its beginning, behind what the tokenizer itself begins with.
        """
        ids: list[int] = []
        while len(ids) < tokens:
            ids += next(self._prompts)
        return cut(ids, tokens, self._begun)

    def _check_shape(self, architecture: Architecture, workload: Workload) -> None:
        wrong = [
            f"{getattr(self.architecture, name)} {name}, the plan {getattr(architecture, name)}"
            for name in self.architecture.differing(architecture)
        ]
        if wrong:
            raise CannotMeasureError(f"--model {self._name}: has {'; '.join(wrong)}")
        longest = most_tokens(self._model)
        if longest is not None and workload.context_tokens > longest:
            raise CannotMeasureError(
                f"--model {self._name}: has positions for {longest} tokens, the plan is for "
                f"{workload.context_tokens}"
            )

    def _check_memory(self, workload: Workload, layers: int) -> None:
        heads = self.architecture.query_heads + 2 * self.architecture.kv_heads
        tokens = workload.batch_size * workload.context_tokens
        elements = layers * heads * self.architecture.head_dim * tokens
        needed, free = elements * self._model.dtype.itemsize, free_bytes(self._accelerator)
        if free is not None and needed > free:
            raise CannotMeasureError(
                f"--model {self._name}: the activations of {layers} layers at {tokens} tokens need "
                f"{needed / 1e9:.2f} GB on {self._accelerator}, but only {free / 1e9:.2f} GB are "
                "free: deploy fewer layers"
            )


def _activations(call: LayerAttention) -> Activations:
    if call.slides or call.softcap is not None:
        kind = "a sliding window" if call.slides else "squashed logits"
        raise CannotMeasureError(
            f"--model: layer {call.layer} has {kind}; deploy layers of full causal attention"
        )
    return Activations(call.q * (call.scaling * call.q.shape[2] ** 0.5), call.k, call.v)


def _joined(sequences: list[Activations]) -> Activations:
    parts = zip(*((s.q, s.keys, s.values) for s in sequences), strict=True)
    return Activations(*(torch.cat(part, dim=1) for part in parts))
