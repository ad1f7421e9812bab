"""What a user of `executor` may rely on: its names, what its help says, and that it says so."""

import doctest
import subprocess
import sys
from inspect import getdoc, signature

import pytest
import torch

import executor
from executor import BudgetPolicy, Cache, Chunk, HeadShare, attach, attend, prepare
from tests.executor.kernels.reference import list_of

NAMES = {"prepare", "attend", "HeadShare", "Chunk", "Cache", "attach", "BudgetPolicy"}


def test_the_names() -> None:
    assert set(executor.__all__) == NAMES
    assert set(dir(executor)) >= NAMES
    found: dict[str, object] = {}
    exec("from executor import *", found)
    assert set(found) - {"__builtins__"} == NAMES


def test_there_is_no_other() -> None:
    with pytest.raises(AttributeError, match="module 'executor' has no attribute 'attention_of'"):
        executor.attention_of  # noqa: B018


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_says_what_it_is(name: str) -> None:
    assert len(getdoc(getattr(executor, name)) or "") > 200


def test_the_arguments() -> None:
    def arguments(of: object) -> str:
        return " ".join(signature(of).parameters)  # type: ignore[arg-type]

    assert arguments(prepare) == (
        "shares chunks block_tokens device room_tokens packed programs piece_tokens sdpa dense_from"
    )
    assert arguments(attend) == "q cache step backend bounds sms watched_rows"
    assert arguments(HeadShare) == "head group budget_tokens rows sequence pattern"
    assert arguments(Chunk) == "cached_tokens new_tokens decodes"
    assert arguments(Cache) == "keys values starts pages"
    assert arguments(attach) == "model policy"
    assert arguments(BudgetPolicy) == (
        "tokens selection block_tokens piece_tokens backend watched_rows as_chosen"
    )


def test_the_example_in_its_help_runs() -> None:
    found = doctest.testmod(executor)
    assert found.attempted >= 8
    assert found.failed == 0


@pytest.mark.slow
def test_importing_it_loads_no_torch() -> None:
    script = "import sys, executor; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_two_heads_within_their_budgets_are_dense_attention_over_what_they_chose() -> None:
    """In float64: one head sees every key; the other the pieces of its list, and no more."""
    torch.manual_seed(0)
    tokens, block, piece = 200, 64, 16
    q, keys, values = torch.randn(2, tokens, 32), torch.randn(1, 256, 32), torch.randn(1, 256, 32)
    cache = Cache(keys, values, starts=torch.tensor([0], dtype=torch.int32))
    shares = [HeadShare(0, 0, tokens), HeadShare(1, 0, budget_tokens=80)]
    step = prepare(shares, [Chunk(0, tokens)], block, piece_tokens=piece)
    result = attend(q, cache, step)

    assert step.prefill is not None
    assert result.indices is not None
    chosen = torch.zeros(2, tokens, tokens, dtype=torch.bool)
    for number in range(step.prefill.lists):
        first = int(step.prefill.query_block[number]) * block
        pieces = list_of(step.prefill, result.indices, number)
        for start in (p * piece for p in pieces):
            chosen[number // 4, first : first + block, start : start + piece] = True
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    assert torch.equal(chosen[0] & causal, causal)
    # Five pieces, or the four of the first block's own.
    assert chosen[1, [0, 64, 128, 199]].sum(-1).tolist() == [64, 80, 80, 80 - 8]

    logits = q.double() @ keys[:, :tokens].double().mT / 32**0.5
    weights = logits.masked_fill(~(chosen & causal), -torch.inf).softmax(-1)
    dense = logits.masked_fill(~causal, -torch.inf).softmax(-1)
    expected = weights @ values[:, :tokens].double()
    torch.testing.assert_close(result.out.double(), expected, atol=1e-5, rtol=1e-5)
    of_all = dense @ values[:, :tokens].double()
    torch.testing.assert_close(result.out[0].double(), of_all[0], atol=1e-5, rtol=1e-5)
    assert (result.out[1].double() - of_all[1])[block:].abs().max() > 0.01
