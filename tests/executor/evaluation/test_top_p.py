"""Top-p against counting by hand in float64, and its calibration against what it then computes."""

import pytest
import torch

from executor.evaluation.block_masses import (
    STRIDE,
    Masses,
    antidiagonal_masses,
    exact_masses,
    pooled_masses,
    sampled_masses,
)
from executor.evaluation.top_p import Calibrated, TopP, Watching
from executor.inference.policy import LayerCall

SIZE = 4


def call_of(new: int, cached: int = 0, seed: int = 0, sharp: float = 2.0) -> LayerCall:
    torch.manual_seed(seed)
    q = sharp * torch.randn(4, new, 8)
    keys, values = torch.randn(2, cached + new, 8), torch.randn(2, cached + new, 8)
    return LayerCall(0, q, keys, values, 8**-0.5)


def weights_of(call: LayerCall) -> torch.Tensor:
    """Attention [query_heads, new, tokens] in float64."""
    keys = call.keys.double().repeat_interleave(2, dim=0)
    logits = call.q.double() @ keys.mT * call.scaling
    row = torch.arange(call.cached, call.keys.shape[1])[:, None]
    return logits.masked_fill(torch.arange(call.keys.shape[1]) > row, -torch.inf).softmax(-1)


def slow_masses(call: LayerCall, of: Masses) -> list[list[dict[int, float]]]:
    """Of every head and query block, the mass of every key block up to its own."""
    weights, tokens = weights_of(call), call.keys.shape[1]
    found = []
    for head in range(call.q.shape[0]):
        blocks = []
        for own in range(call.cached // SIZE, -(-tokens // SIZE)):
            rows = [r for r in range(call.cached, tokens) if r // SIZE == own]
            places = [r - call.cached for r in rows]
            if of is pooled_masses:
                query = call.q[head, places].double().mean(0)
                key = call.keys[head // 2].double()
                means = [key[b * SIZE : (b + 1) * SIZE].mean(0) for b in range(own + 1)]
                shares = torch.stack([query @ m for m in means]).mul(call.scaling).softmax(0)
            else:
                if of is sampled_masses:
                    # The last row of every eighth of them, as far as there are so many.
                    ends = {len(places) * part // 8 for part in range(1, 9)} - {0}
                    places = [places[end - 1] for end in sorted(ends)]
                of_block = [
                    weights[head, places, b * SIZE : (b + 1) * SIZE] for b in range(own + 1)
                ]
                shares = torch.stack([x.sum(-1).mean() for x in of_block])
            blocks.append(dict(enumerate(shares.tolist())))
        found.append(blocks)
    return found


@pytest.mark.parametrize(("new", "cached"), [(70, 0), (40, 24), (33, 13), (1, 47)])
@pytest.mark.parametrize("block", [4, 16])
def test_antidiagonals_are_those_counted_by_hand(new: int, cached: int, block: int) -> None:
    call, stride = call_of(new, cached, seed=new), min(STRIDE, block)
    total, zero = cached + new, torch.zeros(8, dtype=torch.float64)
    found = antidiagonal_masses(call, block)
    for head in range(4):
        queries = [zero if t < cached else call.q[head, t - cached].double() for t in range(total)]
        keys = [k.double() for k in call.keys[head // 2]]
        queries, keys = queries + [zero] * stride, keys + [zero] * stride
        rows: dict[int, list[torch.Tensor]] = {}
        for run in range(cached // stride, -(-total // stride)):
            sums = [
                sum(
                    queries[run * stride + s] @ keys[column * stride + stride - 1 - s]
                    for s in range(stride)
                )
                for column in range(run + 1)
            ]
            shares = torch.tensor(sums, dtype=torch.float64).mul(call.scaling / stride).softmax(0)
            by_block = torch.zeros(found.shape[2], dtype=torch.float64)
            for column, share in enumerate(shares):
                by_block[column * stride // block] += share
            rows.setdefault(run * stride // block, []).append(by_block)
        for place, own in enumerate(sorted(rows)):
            wanted = torch.stack(rows[own]).mean(0)
            assert found[head, place].double().tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def slow_kept(masses: dict[int, float], p: float) -> set[int]:
    own = max(masses)
    kept = {0, own}
    while sum(masses[b] for b in kept) < p:
        kept.add(max((b for b in masses if b not in kept), key=lambda b: masses[b]))
    return kept


@pytest.mark.parametrize(("new", "cached"), [(21, 0), (9, 14), (1, 30), (300, 0)])
@pytest.mark.parametrize("of", [pooled_masses, sampled_masses, exact_masses])
def test_masses_and_kept_blocks_are_those_counted_by_hand(
    new: int, cached: int, of: Masses
) -> None:
    call, p = call_of(new, cached, seed=new), 0.8
    masses, slow = of(call, SIZE), slow_masses(call, of)
    attended = TopP(1 - p, SIZE, of).attend(call)
    weights, tiles = weights_of(call), 0
    for head, blocks in enumerate(slow):
        for place, block in enumerate(blocks):
            found = {b: float(masses[head, place, b]) for b in block}
            assert found == pytest.approx(block, abs=1e-5)
            kept = slow_kept(block, p)
            tiles += len(kept)
            for row in range(call.keys.shape[1]):
                if row >= cached and row // SIZE == place + cached // SIZE:
                    dropped = [t for t in range(row + 1) if t // SIZE not in kept]
                    weights[head, row - cached, dropped] = 0.0
    assert attended.tiles == tiles
    assert attended.dense_tiles == 4 * sum(len(block) for block in slow[0])
    weights /= weights.sum(-1, keepdim=True)
    wanted = weights @ call.values.double().repeat_interleave(2, dim=0)
    torch.testing.assert_close(attended.out.double(), wanted, rtol=1e-4, atol=1e-5)


def test_p_of_one_is_dense_and_p_of_nearly_zero_leaves_what_is_always_in() -> None:
    call = call_of(21)
    whole, least = TopP(0.0, SIZE).attend(call), TopP(1.0, SIZE).attend(call)
    assert whole.tiles == whole.dense_tiles == 4 * 21
    assert least.tiles == 4 * (1 + 5 * 2)


def test_a_window_that_hides_keys_is_dense_within_it() -> None:
    call = call_of(21)
    windowed = LayerCall(0, call.q, call.keys, call.values, call.scaling, window=6)
    weights = weights_of(call)
    row, key = torch.arange(21)[:, None], torch.arange(21)
    weights = weights.masked_fill(row - key >= 6, 0.0)
    weights /= weights.sum(-1, keepdim=True)
    found = TopP(0.5, SIZE).attend(windowed)
    wanted = weights @ call.values.double().repeat_interleave(2, dim=0)
    torch.testing.assert_close(found.out.double(), wanted, rtol=1e-4, atol=1e-5)
    assert found.tiles == found.dense_tiles


@pytest.mark.parametrize("density", [0.2, 0.35, 0.6, 0.9])
@pytest.mark.parametrize("of", [pooled_masses, sampled_masses, exact_masses])
def test_calibration_meets_the_density_on_what_it_watched(density: float, of: object) -> None:
    calls = [call_of(200, seed=seed) for seed in range(3)]
    watching = Watching(1, 4, SIZE, of)  # type: ignore[arg-type]
    for call in calls:
        watching.attend(call)
    calibrated = Calibrated.at(watching, density)
    found = [TopP(calibrated.beyond, SIZE, of).attend(call) for call in calls]  # type: ignore[arg-type]
    share = sum(x.tiles for x in found) / sum(x.dense_tiles for x in found)
    assert density - 0.01 < share <= density
    by_head = float(calibrated.head_share.mean())
    assert by_head == pytest.approx(share, abs=1e-6)


def test_calibration_cannot_go_below_what_is_always_in() -> None:
    watching = Watching(1, 4, SIZE)
    watching.attend(call_of(200))
    calibrated = Calibrated.at(watching, 0.01)
    found = TopP(calibrated.beyond, SIZE).attend(call_of(200))
    assert found.tiles == 4 * (1 + 49 * 2)
    assert Calibrated.at(watching, 1.0).beyond == 0.0
