"""Rows of a real model beside what its profile promises of them: the reference model, in chunks and
decoding as an engine has it, on the tasks that it was measured on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a model needs torch")
transformers = pytest.importorskip("transformers", reason="so does loading it")

from api.loop.drift import DriftPolicy, judge_kinds  # noqa: E402
from api.loop.engine_rows import EngineRows, means  # noqa: E402
from api.loop.promise import Promise  # noqa: E402
from executor.attention.block_sparse import AttentionResult  # noqa: E402
from executor.attention.step import PreparedStep  # noqa: E402
from executor.engines.transformers.attach import attach  # noqa: E402
from executor.inference import block_attention  # noqa: E402
from executor.inference.budget_policy import BudgetPolicy  # noqa: E402
from executor.inference.policy import Attended, LayerCall  # noqa: E402
from executor.inference.watched_rows import watched_rows  # noqa: E402
from executor.kernels.recovery import head_recovery, recovery  # noqa: E402
from profiles.catalogue import (  # noqa: E402
    REFERENCE_FOLDER,
    REFERENCE_PROFILE,
    REFERENCE_PROMPTS,
    catalogue_profile,
)
from profiles.tasks.prompts import read  # noqa: E402
from solver import plan as planned  # noqa: E402

CHUNK, DECODES, ROWS = 512, 8, 8


class Watching(BudgetPolicy):
    """A plan's budgets, and what the rows of every call recover, as a rank watches them."""

    def __init__(self, *tokens: Any, **options: Any) -> None:
        super().__init__(*tokens, **options)
        self.prompt, self._layer = 0, 0
        self.told: list[tuple[float, ...]] = []

    def attend(self, call: LayerCall) -> Attended:
        self._layer = call.layer
        return super().attend(call)

    def watching(self, attend: Callable[..., AttentionResult]) -> Callable[..., AttentionResult]:
        """`attend`, watched."""

        def watched(q: Any, cache: Any, step: PreparedStep, *rest: Any, **more: Any) -> Any:
            result = attend(q, cache, step, *rest, **more)
            if step.prefill is not None:
                context = np.array([chunk.total_tokens for chunk in step.chunks])
                held = recovery(q, cache, step.prefill, result.lse, ROWS)
            else:
                assert step.decode is not None
                context = step.context_tokens.numpy().astype(np.int64)
                held = head_recovery(q, cache, step.decode, step.context_tokens, result.lse)
            rows = watched_rows(step, context, range(8), held.double().numpy())
            for values in zip(*vars(rows).values(), strict=True):
                self.told.append((self.prompt, 0, step.prefill is not None, self._layer, *values))
            return result

        return watched

    @property
    def rows(self) -> EngineRows:
        """All of them, a prompt a batch."""
        columns = [np.array(column) for column in zip(*self.told, strict=True)]
        return EngineRows(*columns, np.full(len(self.told), np.nan))


@torch.no_grad()
def test_a_real_model_keeps_the_promise_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the mean over heads; held against the curve at each context, as if late rows were whole
    prompts, it would be accused."""
    profile = catalogue_profile(REFERENCE_PROFILE)
    budget = {"policy": "uniform", "tokens": 256}
    how = {"gpus": 1, "device_type": "cpu", "context_tokens": 2048, "method": "greedy"}
    plan = planned(profile, budget=budget, block_tokens=16, **how)
    promise = Promise.of(profile, plan)
    assert promise is not None
    policy = Watching.of_plan(plan, backend="torch")
    monkeypatch.setattr(block_attention, "attend", policy.watching(block_attention.attend))
    tokenizer = transformers.AutoTokenizer.from_pretrained(REFERENCE_FOLDER)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        REFERENCE_FOLDER, dtype=torch.float32
    ).eval()
    attach(model, policy)
    for policy.prompt, prompt in enumerate(read(REFERENCE_PROMPTS)):
        ids, cache = torch.tensor([tokenizer(prompt.text)["input_ids"]]), None
        for chunk in ids.split(CHUNK, 1):
            made = model(chunk, past_key_values=cache, use_cache=True)
            cache = made.past_key_values
        for _ in range(DECODES):
            newest = made.logits[:, -1:].argmax(-1)
            made = model(newest, past_key_values=cache, use_cache=True)
    seen = promise.of_rows(policy.rows)
    found = {kind: means(seen.only(mine), (4, 8)) for kind, mine in seen.kinds().items()}
    verdict = judge_kinds(found, None, DriftPolicy(), 0.0)
    assert (verdict.heads, verdict.raised) == (32, False)
    curves = promise.curves.points(
        seen.layer, seen.head, np.full_like(seen.head, 256), np.asarray(seen.last)
    )
    as_prompts = replace(seen, promised=curves)
    for kind, mine in seen.kinds().items():
        promised, observed = found[kind]
        whole, _ = means(as_prompts.only(mine), (4, 8))
        missed = promised.recovery.mean() - observed.recovery.mean()
        assert abs(missed) < 0.03, kind
        if kind.context_tokens > CHUNK:
            assert whole.recovery.mean() - observed.recovery.mean() > 0.05, kind
