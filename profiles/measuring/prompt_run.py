"""One prompt through the model: every layer's curves, and how gradients weigh its errors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from profiles.errors import MeasuringError
from profiles.measuring import capture
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.list_recovery import chosen_lists, oracle_curve, selected_curve
from profiles.measuring.loading import Loaded
from profiles.measuring.output_error import gradient_errors, output_errors
from profiles.measuring.piece_masses import piece_masses
from profiles.measuring.residual_stream import Stream, residual_stream
from profiles.measuring.sampled_rows import SampledRows, WeightedRows, draw, with_predicting
from profiles.measuring.selector import Selector

Arrays = dict[str, NDArray[np.float64]]
Told = Callable[[float], None]
"""Called layer by layer with the share that is done of a prompt's work."""


@dataclass(frozen=True, eq=False)
class PromptRun:
    """What every prompt is measured with. `budgets` in pieces, by context."""

    loaded: Loaded
    choices: Choices
    budgets: dict[int, list[int]]
    selector: Selector | None

    def passes(self, item: Item) -> int:
        """A prompt's work in forward passes, of which a backward pass costs two."""
        shortest = item.context_tokens == self.choices.contexts[0]
        return 3 if self.choices.gradients and shortest and self.selector is not None else 1

    def measure(self, item: Item, told: Told = lambda _: None) -> Arrays:
        """recovery, selected_recovery, output_error and gradient_error, [layers, heads, points]:
        those that were asked for and can be had of every layer.

        Raises MeasuringError.
        """
        choices, model = self.choices, self.loaded.model
        random = np.random.default_rng([choices.seed, item.context_tokens, item.number])
        rows = draw(len(item.tokens), choices.block_tokens, choices.rows, random)
        rows = rows.to(model.device)
        tokens = torch.tensor([item.tokens], device=model.device)
        with residual_stream(model) as stream:
            layers = _Layers(self, item, rows, stream, told)
            if self.passes(item) > 1 and self.selector is not None:
                self._differentiate(layers, self.selector, tokens, item)
            else:
                with torch.no_grad(), capture.watching(layers.curves):
                    model(input_ids=tokens, use_cache=False, logits_to_keep=1)
        return layers.arrays()

    def _differentiate(
        self, layers: "_Layers", selector: Selector, tokens: torch.Tensor, item: Item
    ) -> None:
        """The loss is the mean cross-entropy of the item's answers."""
        model = self.loaded.model
        if not item.answers:
            raise MeasuringError("no token of its answers is left: the loss has no gradient")
        predicting = torch.tensor(item.answers, device=tokens.device) - 1
        rows = with_predicting(layers.rows, predicting, tokens.shape[1], self.choices.block_tokens)
        await_gradient = partial(layers.await_gradient, rows, selector)
        # Weights are frozen: the gradient flows from the embeddings on.
        begin = model.get_input_embeddings().register_forward_hook(
            lambda _module, _inputs, embedded: embedded.requires_grad_()
        )
        try:
            with capture.watching(layers.curves), capture.watching(await_gradient):
                logits = model(input_ids=tokens, use_cache=False, logits_to_keep=predicting).logits
            loss = torch.nn.functional.cross_entropy(logits[0].float(), tokens[0, predicting + 1])
            torch.autograd.backward(loss)
        finally:
            begin.remove()


class _Layers:
    """Collects what the layers of one prompt show."""

    def __init__(
        self, run: PromptRun, item: Item, rows: SampledRows, stream: Stream, told: Told
    ) -> None:
        self.run = run
        self.rows = rows
        self.budgets = run.budgets[item.context_tokens]
        self.stream = stream
        self.told = told
        self.each = 1 / run.loaded.architecture.layers / run.passes(item)
        self.found: dict[str, dict[int, torch.Tensor]] = {}

    def curves(self, call: LayerAttention, _out: torch.Tensor) -> None:
        run, rows = self.run, self.rows
        with torch.no_grad():
            masses = piece_masses(call, rows, run.choices.piece)
            oracle = oracle_curve(masses, call, rows, run.choices, self.budgets)
            self._keep("recovery", call.layer, oracle)
            if run.selector is not None:
                lists = chosen_lists(run.selector, call, rows, run.choices, self.budgets)
                self._keep("selected_recovery", call.layer, selected_curve(masses, lists, rows))
                if call.layer in self.stream and call.out_weight is not None:
                    stream = self.stream[call.layer]
                    errors = output_errors(call, rows, stream, lists, run.choices.piece)
                    self._keep("output_error", call.layer, errors)
        self.told((call.layer + 1) * self.each)

    def await_gradient(
        self, rows: WeightedRows, selector: Selector, call: LayerAttention, out: torch.Tensor
    ) -> None:
        choices = self.run.choices

        def arrived(gradient: torch.Tensor) -> None:
            if not gradient.isfinite().all():
                raise MeasuringError(f"layer {call.layer}: the loss' gradient is not finite")
            with torch.no_grad():
                lists = chosen_lists(selector, call, rows.rows, choices, self.budgets)
            errors = gradient_errors(call, rows, lists, choices.piece, gradient)
            self._keep("gradient_error", call.layer, errors)
            self.told(1 - 2 * call.layer * self.each)

        out.register_hook(arrived)  # type: ignore[no-untyped-call]

    def arrays(self) -> Arrays:
        """Layer after layer, each field that all of them have one array."""
        layers = range(self.run.loaded.architecture.layers)
        return {
            field: np.stack([values[layer].numpy() for layer in layers])
            for field, values in self.found.items()
            if len(values) == len(layers)
        }

    def _keep(self, field: str, layer: int, values: torch.Tensor) -> None:
        bad = (~values.isfinite()).any(1).nonzero().flatten().tolist()
        if bad:
            heads = ", ".join(map(str, bad))
            raise MeasuringError(
                f"layer {layer}, query heads {heads}: {field} is not finite: NaN or infinite "
                "values, or an overflow of the dtype"
            )
        self.found.setdefault(field, {})[layer] = values.double().cpu()
