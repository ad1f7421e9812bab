"""The check on teacher forcing: the same samples answered by greedy generation with a K/V cache.

Prefill and decode both run under the policy. Every question is asked after the reference answers
of those before it; an answer's word is right if the model's text has it (RULER's string match).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import fmean

import torch

from executor.engines.transformers.attach import attached
from executor.engines.transformers.cache import GrowingCache
from executor.evaluation.asked import Asked, Word
from executor.evaluation.journal import Row
from executor.evaluation.methods import Method
from profiles.measuring.loading import Loaded


@dataclass(frozen=True, slots=True)
class Generated:
    """Mean scores of `samples` by both ways, and the share of samples that score the same."""

    method: str
    density: float | None
    samples: int
    teacher_forced: float
    generated: float
    alike: float


def compare(
    loaded: Loaded, method: Method, asked: Sequence[Asked], rows: Sequence[Row]
) -> Generated:
    """Generate the answers of `asked` under `method`, beside the scores that `rows` have."""
    forced = {
        (row.task, row.seed): row.value
        for row in rows
        if (row.method, row.density) == (method.name, method.density)
    }
    pairs = [(forced[sample.task, sample.seed], _score(loaded, method, sample)) for sample in asked]
    return Generated(
        method.name,
        method.density,
        len(pairs),
        fmean(teacher for teacher, _ in pairs),
        fmean(own for _, own in pairs),
        fmean(abs(teacher - own) < 1e-9 for teacher, own in pairs),
    )


def _score(loaded: Loaded, method: Method, asked: Asked) -> float:
    right = 0
    for number in range(len(asked.ordered)):
        words = [word for word in asked.words if word.question == number]
        text = _greedy(loaded, method, asked, words)
        answers = [loaded.tokenizer.decode(asked.ids[w.first : w.last]).strip() for w in words]
        right += sum(word in text for word in answers)
    return right / len(asked.words)


@torch.inference_mode()
def _greedy(loaded: Loaded, method: Method, asked: Asked, words: Sequence[Word]) -> str:
    """As many tokens as the reference answer has."""
    prompt = torch.tensor([asked.ids[: words[0].first]], device=loaded.model.device)
    tokens = words[-1].last - words[0].first
    policy = method.policy
    with nullcontext() if policy is None else attached(loaded.model, policy):
        found = loaded.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            past_key_values=GrowingCache(loaded.model.config),
        )
    return str(loaded.tokenizer.decode(found[0, prompt.shape[1] :]))
