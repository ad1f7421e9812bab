"""Whether a checkpoint with a plan in it computes what the one it was made of does: both run here,
in float32.

Attention is dense, the model's own. Of a head that several ranks compute, each rank's slot keeps
the rows that the map gives it and leaves zeros in the others, as its rank would; all ranks' slots
are in one process here, whose output projection adds them up.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from executor.attention.query_rows import decodes
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.errors import WeightsError
from executor.kernels.batch import Chunk
from executor.row_ranges import Range
from executor.weights.execution_map import ExecutionMap
from profiles.errors import MeasuringError
from profiles.measuring.loading import from_folder, most_tokens

TOLERANCE = 5e-5
"""Of the largest logit."""
CHUNK_BLOCKS = (1.4, 2.3)
"""Query blocks in the two chunks of the prompt, so that the second begins inside one."""
DECODED = 8


@dataclass(frozen=True)
class Compared:
    """A prompt in chunks and tokens decoded, by the model (or what carried another plan) and by the
    checkpoint with the plan.

    `difference` is the largest of two logits, `largest` the largest logit.
    """

    prompt_tokens: int
    decoded_tokens: int
    difference: float
    largest: float


@torch.no_grad()
def compare(
    original: Path, was: ExecutionMap | None, applied: Path, made: ExecutionMap
) -> Compared:
    """Read random tokens with both models and let both go on; the original may carry a map, too.

    Raises WeightsError where they differ.
    """
    model = _load(original)
    ids = _prompt(model, made.block_tokens)
    own = None if was is None else _OwnRows(model, was)
    expected, tokens = _read(model, ids, made.block_tokens, own)
    del model
    model = _load(applied)
    found, others = _read(model, ids, made.block_tokens, _OwnRows(model, made))
    difference = float((found - expected).abs().max())
    largest = float(expected.abs().max())
    if tokens != others or not difference <= TOLERANCE * largest:
        raise WeightsError(
            f"--check: the largest difference of logits is {difference:.3g} of {largest:.3g} (at "
            f"most {TOLERANCE:g} of it), and the tokens are {'' if tokens == others else 'not '}"
            "the same: nothing was written"
        )
    return Compared(len(ids), len(tokens), difference, largest)


class _OwnRows:
    """Of every slot's output, the rows that are its rank's, before the projection adds them."""

    def __init__(self, model: Any, made: ExecutionMap) -> None:
        self._map = made
        self.cached = 0
        layers = {
            module.layer_idx: module
            for module in model.modules()
            if hasattr(module, "o_proj") and hasattr(module, "layer_idx")
        }
        if sorted(layers) != list(range(made.architecture.layers)):
            raise WeightsError(f"--check: {type(model).__name__} has no o_proj in every layer")
        for layer, module in layers.items():
            rows = [
                (index, head, own)
                for index, (_, head, own) in enumerate(made.layout.query_slots(layer))
                if head is not None and own != (0.0, 1.0)
            ]
            module.o_proj.register_forward_pre_hook(self._keeping(layer, rows))

    def _keeping(self, layer: int, parts: list[tuple[int, int, Range | None]]) -> Any:
        def keep(_: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            heads = given[0].clone()
            heads = heads.view(*heads.shape[:-1], -1, self._map.architecture.head_dim)
            for index, head, rows in parts:
                own = self._own(layer, head, rows, heads.shape[1])
                heads[:, : own.start, index] = 0
                heads[:, own.stop :, index] = 0
            return (heads.view(given[0].shape),)

        return keep

    def _own(self, layer: int, head: int, rows: Range | None, new: int) -> slice:
        """The new tokens, of one sequence, that a slot's rows are."""
        if rows is None:
            return slice(0, 0)
        made, budget = self._map, self._map.budgets[layer][head]
        if new == 1 and self.cached:
            return slice(0, int(decodes(rows, [1], 0)))
        step = prepare(
            [HeadShare(0, 0, budget, rows)],
            [Chunk(self.cached, new)],
            made.block_tokens,
            piece_tokens=made.piece_tokens,
        )
        return next(iter(step.spans[0]), slice(0, 0))


def _read(
    model: Any, ids: torch.Tensor, block_tokens: int, own: _OwnRows | None
) -> tuple[torch.Tensor, list[int]]:
    """Logits [tokens, vocabulary] of the prompt and of what follows, and the tokens that follow."""
    found: list[torch.Tensor] = []
    tokens: list[int] = []
    cut = min(round(CHUNK_BLOCKS[0] * block_tokens), len(ids) // 2)
    waiting, cache, cached = [ids[:cut], ids[cut:]], None, 0
    while waiting:
        step = waiting.pop(0)
        if own is not None:
            own.cached = cached
        made = model(step[None], past_key_values=cache, use_cache=True)
        cache, cached = made.past_key_values, cached + len(step)
        found.append(made.logits[0])
        if not waiting and len(tokens) < DECODED:
            waiting.append(made.logits[0, -1:].argmax(-1))
            tokens.append(int(waiting[0]))
    return torch.cat(found), tokens


def _load(folder: Path) -> Any:
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    try:
        model, _ = from_folder(str(folder), folder, tokenizer=False, **options)
    except MeasuringError as error:
        raise WeightsError(f"--check: {error}") from None
    return model.eval().requires_grad_(False)


def _prompt(model: Any, block_tokens: int) -> torch.Tensor:
    """Random tokens [tokens], but none that mean something else than text."""
    text = model.config.get_text_config()
    fields = {**model.config.to_dict(), **text.to_dict()}
    special = {value for name, value in fields.items() if "token_i" in name and value.__hash__}
    words = [word for word in range(text.vocab_size) if word not in special]
    generator = torch.Generator().manual_seed(0)
    count = round(sum(CHUNK_BLOCKS) * block_tokens)
    positions = most_tokens(model)
    if positions is not None:
        count = min(count, positions - DECODED)
    return torch.tensor(words)[torch.randint(len(words), (count,), generator=generator)]
