"""benchmarks/serving: the trace that is asked for, and a row's figures from what came of it."""

import random
from statistics import median

import pytest

from benchmarks.serving import ATTENTION, Answer, Metrics, Request, Round, summarise, trace

TILES, DENSE = "hplb_tiles_total", "hplb_dense_tiles_total"


def test_requests_have_the_traces_shape() -> None:
    requests = trace(2000, 5.0, random.Random(1))
    prompts = [request.prompt_tokens for request in requests]
    made = [request.output_tokens for request in requests]
    assert min(prompts) >= 2048
    assert max(prompts) <= 7437
    assert 3000 < median(prompts) < 4000
    assert 11 < median(made) < 17
    assert (min(made), max(made)) == (6, 64)
    assert [request.at_s for request in requests] == sorted(request.at_s for request in requests)
    assert requests[0].at_s == 0.0
    assert requests[-1].at_s / (len(requests) - 1) == pytest.approx(5.0, rel=0.1)
    assert requests[:50] == trace(50, 5.0, random.Random(1))


def round_of(firsts: list[float], counted: Metrics, tokens: tuple[int, ...] = (1, 2, 3)) -> Round:
    """A token every half second after the first."""
    return Round([Answer(s, s + 0.5 * (len(tokens) - 1), tokens) for s in firsts], 20.0, counted)


def counted(first_s: float, second_s: float) -> Metrics:
    """Of two ranks, of which each computed a quarter."""
    seconds = {(ATTENTION, "0"): first_s, (ATTENTION, "1"): second_s}
    tiles = {(name, rank): n for name, n in ((TILES, 25.0), (DENSE, 100.0)) for rank in "01"}
    return seconds | tiles


def test_a_rows_figures_are_medians_of_rounds_and_of_all_requests() -> None:
    stock = [round_of([1.0, 2.0, 3.0], {}), round_of([5.0, 6.0, 7.0], {})]
    own = [
        round_of([2.0, 4.0, 6.0], counted(3.0, 1.0)),
        round_of([4.0, 6.0, 8.0], counted(2.0, 2.0), (1, 2, 4)),
    ]
    requests = [Request(0.0, 97, 3)] * 3
    row = summarise("planned", requests, own, stock)
    assert row["tokens_per_s"] == {"median": 15.0, "least": 15.0, "most": 15.0}
    assert row["first_token_s"] == {"median": 5.0, "least": 4.0, "most": 6.0}
    assert row["first_token_p90_s"] == pytest.approx(7.0)
    assert row["next_token_s"]["median"] == pytest.approx(0.5)
    assert [rank["median"] for rank in row["ranks_s"]] == [2.5, 1.5]
    assert row["over_mean"] == {"median": 1.25, "least": 1.0, "most": 1.5}
    assert row["tiles_of_dense"] == 0.25
    assert row["stock_answers"] == 0.5
    row = summarise("stock", requests, stock, stock)
    assert (row["ranks_s"], row["over_mean"], row["tiles_of_dense"]) == ([], None, None)
    assert row["stock_answers"] == 1.0
