"""RULER's score, teacher-forced: the share of the answers' words that the model names.

The prompt is prefilled up to the answer, and the reference answer's tokens follow one by one with
the K/V cache, so that blocks are chosen as in generation: in one pass, the pooled query of the last
block would hold the answer's own rows. A word is right if each of its tokens is the likeliest
after everything before it. As long as the words before it are right, that is greedy decoding;
after a wrong one, the reference stands where the model's own word would.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from executor.engines.transformers.attach import attached
from executor.errors import EvaluationError
from executor.evaluation.asked import Asked, Word
from executor.inference.policy import Policy
from executor.inference.trace import Trace
from profiles.sizes import causal_pieces


@dataclass(frozen=True, slots=True)
class Computed:
    """(query block, key piece) products of all heads, and how many dense attention has."""

    tiles: int
    dense_tiles: int


def score(asked: Asked, predicted: Mapping[int, int]) -> float:
    """Share of words that are right; `predicted` is the likeliest token at each of the places.

    In a question without order, any word not yet named is right by its first token; the reference
    goes on with its own word, whose further tokens count only where it is the one begun.
    """
    right = 0
    for number, ordered in enumerate(asked.ordered):
        words = [word for word in asked.words if word.question == number]
        for index, word in enumerate(words):
            begun = predicted[word.first]
            if ordered or begun == asked.ids[word.first]:
                right += _all_right(asked, word, predicted)
            else:
                right += begun in {asked.ids[later.first] for later in words[index + 1 :]}
    return right / len(asked.words)


def _all_right(asked: Asked, word: Word, predicted: Mapping[int, int]) -> bool:
    return all(predicted[at] == asked.ids[at] for at in range(word.first, word.last))


def answer(
    model: Any, asked: Asked, policy: Policy | None, block_tokens: int
) -> tuple[float, Computed]:
    """The score under `policy` (None: the model as it is), and what the prefill computed."""
    places = asked.places
    logits, computed = logits_step_by_step(model, asked.ids, places, policy, block_tokens)
    _refuse_nan(logits)
    likeliest = logits.argmax(dim=-1).tolist()
    return score(asked, dict(zip(places, likeliest, strict=True))), computed


def surprise(
    model: Any, ids: tuple[int, ...], scored: int, policy: Policy | None, block_tokens: int
) -> tuple[float, Computed]:
    """Mean negative log-likelihood, in nats, of the last `scored` tokens of a text."""
    places = tuple(range(len(ids) - scored, len(ids)))
    logits, computed = logits_at_once(model, ids, places, policy, block_tokens)
    return mean_nats(logits, ids[-scored:]), computed


def mean_nats(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """Mean negative log-likelihood of the tokens that logits [tokens, vocabulary] predict.

    Raises EvaluationError for NaN.
    """
    _refuse_nan(logits)
    targets = torch.tensor(tokens, device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits.float(), targets))


def _refuse_nan(logits: torch.Tensor) -> None:
    """Raise EvaluationError for logits of which none is the largest."""
    if logits.isnan().any():
        raise EvaluationError(
            "--model: its logits are NaN: NaN or infinite weights, or an overflow of its dtype"
        )


@torch.inference_mode()
def logits_step_by_step(
    model: Any,
    ids: tuple[int, ...],
    places: tuple[int, ...],
    policy: Policy | None,
    block_tokens: int,
) -> tuple[torch.Tensor, Computed]:
    """Logits [places, vocabulary] that predict the tokens at `places`, as generation has them.

    A call ends before every place. Only the first, the prompt's prefill, is counted.
    """
    sequence = torch.tensor([ids], device=model.device)
    found, cache, computed = [], None, None
    with nullcontext() if policy is None else attached(model, policy) as trace:
        for first, last in pairwise((0, *places)):
            out = model(
                sequence[:, first:last], past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            found.append(out.logits[0, -1])
            cache = out.past_key_values
            computed = computed or _computed(model, trace, last, block_tokens)
    assert computed is not None  # a sample has an answer
    return torch.stack(found), computed


@torch.inference_mode()
def logits_at_once(
    model: Any,
    ids: tuple[int, ...],
    places: tuple[int, ...],
    policy: Policy | None,
    block_tokens: int,
) -> tuple[torch.Tensor, Computed]:
    """Logits [places, vocabulary] that predict the tokens at `places`, and no others: memory."""
    sequence = torch.tensor([ids], device=model.device)
    wanted = torch.tensor(places, device=model.device) - 1
    with nullcontext() if policy is None else attached(model, policy) as trace:
        logits = model(sequence, logits_to_keep=wanted, use_cache=False).logits[0]
    return logits, _computed(model, trace, len(ids), block_tokens)


def _computed(model: Any, trace: Trace | None, tokens: int, block_tokens: int) -> Computed:
    """What the trace has, or for the model as it is all causal blocks."""
    if trace is not None:
        return Computed(trace.tiles, trace.dense_tiles)
    config = model.config.get_text_config()
    blocks = -(-tokens // block_tokens)
    heads = config.num_hidden_layers * config.num_attention_heads
    dense = heads * causal_pieces(blocks, blocks)
    return Computed(dense, dense)
