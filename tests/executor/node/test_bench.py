from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention import block_sparse as entry
from executor.attention.block_sparse import AttentionResult, attend
from executor.attention.step import prepare
from executor.errors import CannotMeasureError
from executor.node import bench as bench_module
from executor.node import layers
from executor.node.activations import Activations
from executor.node.bench import Bench
from executor.node.shard import layer_shard
from executor.node.timing_lock import InterruptedWait, timing_lock
from executor.node.traffic import Traffic
from profiles.cost.work import FEATURES, INDEX, Deployment, Phase, group_work, head_work
from profiles.selection import POOLED, Pooled, Sampled, Selection, SinkLocal, VerticalSlash
from solver.planning.predict import shard_work
from solver.plans import Plan
from tests.executor.plans import Placement, tiny_plan, whole

DEPLOYMENTS: tuple[Deployment, ...] = ("disaggregated", "tensor_parallel")


def never() -> bool:
    return False


def predicted(plan: Plan, placed: dict[int, list[int]], layer: int) -> dict[int, list[float]]:
    """The cost model's work of every device, for whole heads placed as `placed[device]`."""
    budgets, workload = np.array(plan.budgets, dtype=float), plan.workload.workload
    heads = head_work(budgets[layer], plan.architecture, workload, plan.selection)
    groups = group_work(budgets, plan.architecture, workload)[layer]
    loads = {}
    for device, mine in placed.items():
        present = sorted({plan.architecture.kv_head(head) for head in mine})
        work = heads[mine].sum(axis=0) + groups[present].sum(axis=0)
        work[INDEX["launches"]] = 1
        loads[device] = work.tolist()
    return loads


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("context_tokens", [256, 300])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("selection", [POOLED, Sampled(rows=3)], ids=lambda s: s.kind)
@pytest.mark.parametrize("piece_tokens", [64, 16])
def test_work_is_what_the_cost_model_predicts(
    deployment: Deployment,
    batch_size: int,
    context_tokens: int,
    phase: Phase,
    selection: Selection,
    piece_tokens: int,
) -> None:
    """Where one head of each group decodes on a device: packed heads share the longest list."""
    plan = tiny_plan(
        whole(0, 1, 1, 1),
        budgets=[context_tokens, 64, 100, 192],
        deployment=deployment,
        batch_size=batch_size,
        context_tokens=context_tokens,
        phase=phase,
        kv_heads=2 if phase == "prefill" else 4,
        piece_tokens=piece_tokens,
    ).model_copy(update={"selection": selection})
    bench = Bench(["cpu", "cpu"], "torch")
    for device, work in predicted(plan, {0: [0], 1: [1, 2, 3]}, 1).items():
        sample = bench.measure(layer_shard(plan, device, 1), device, never)
        assert sample is not None
        assert (sample.layer, sample.device) == (1, device)
        assert sample.seconds > 0
        assert sample.work == dict(zip(FEATURES, work, strict=True))


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from(DEPLOYMENTS),
    st.sampled_from([POOLED, Sampled()]),
    st.sampled_from([64, 16]),
)
@settings(max_examples=15, deadline=None)
def test_dividing_a_head_divides_its_work(
    parts: list[int], deployment: Deployment, selection: Selection, piece_tokens: int
) -> None:
    devices = len(parts)
    divided: Placement = [[(d, part / sum(parts)) for d, part in enumerate(parts)]]
    undivided: Placement = [[(0, 1.0)]]
    total: dict[str, float] = dict.fromkeys(FEATURES, 0.0)
    bench = Bench(["cpu"] * devices, "torch")
    options = {"kv_heads": 1, "budgets": [128], "layers": 1, "deployment": deployment}
    options["piece_tokens"] = piece_tokens
    chosen = {"selection": selection}
    plan = tiny_plan(divided, devices=devices, **options)  # type: ignore[arg-type]
    plan = plan.model_copy(update=chosen)
    for device in range(devices):
        sample = bench.measure(layer_shard(plan, device, 0), device, never)
        assert sample is not None
        for name in FEATURES:
            total[name] += sample.work[name]
    whole_plan = tiny_plan(undivided, devices=1, **options)  # type: ignore[arg-type]
    whole_plan = whole_plan.model_copy(update=chosen)
    alone = bench.measure(layer_shard(whole_plan, 0, 0), 0, never)
    assert alone is not None
    kinds = ("dense_tile_flops", "gathered_tile_flops", "sampled_flops")
    for name in ("query_blocks", "scored_blocks", *kinds):
        assert total[name] == alone.work[name]
    copies = devices - 1
    budgets = np.array([[128.0]])
    group = group_work(budgets, plan.architecture, plan.workload.workload)[0, 0]
    for name in ("kv_bytes", "link_bytes", "projection_flops"):
        assert total[name] == alone.work[name] + copies * group[INDEX[name]]


def test_sampled_rows_of_a_divided_head_are_counted_by_the_pairs_they_score() -> None:
    """Two rows of blocks each: as many tiles, all their own, but 3 pairs to choose from and 7."""
    selection = Sampled(rows=5)
    plan = tiny_plan(
        [[(0, 0.5), (1, 0.5)]], layers=1, kv_heads=1, budgets=[64], context_tokens=256
    ).model_copy(update={"selection": selection})
    bench, expected = Bench(["cpu", "cpu"], "torch"), shard_work(plan, 0)
    for device, pairs in enumerate((3, 7)):
        sample = bench.measure(layer_shard(plan, device, 0), device, never)
        assert sample is not None
        counts = {
            "dense_tile_flops": 2 * 4 * 64 * 64 * 16,
            "gathered_tile_flops": 0,
            "sampled_flops": pairs * selection.rows * 64 * 2 * 16,
            "scored_blocks": pairs,
        }
        for name, count in counts.items():
            assert sample.work[name] == count
            assert expected[device, INDEX[name]] == pytest.approx(count)


def test_the_first_rows_of_a_divided_head_are_dense_and_the_last_gathered() -> None:
    """Lists of 1, 2, 2 and 2 blocks, of which the last two leave something out."""
    plan = tiny_plan([[(0, 3 / 7), (1, 4 / 7)]], layers=1, kv_heads=1, budgets=[128])
    bench, expected = Bench(["cpu", "cpu"], "torch"), shard_work(plan, 0)
    for device, (dense, gathered) in enumerate([(3, 0), (2, 2)]):
        sample = bench.measure(layer_shard(plan, device, 0), device, never)
        assert sample is not None
        for name, tiles in (("dense_tile_flops", dense), ("gathered_tile_flops", gathered)):
            assert sample.work[name] == tiles * 4 * 64 * 64 * 16
            assert expected[device, INDEX[name]] == pytest.approx(sample.work[name])


def test_a_device_without_work_gives_no_sample() -> None:
    plan = tiny_plan(whole(0, 0, 0, 0))
    assert Bench(["cpu", "cpu"], "torch").measure(layer_shard(plan, 1, 0), 1, never) is None


def test_a_context_too_large_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = tiny_plan(context_tokens=16 * 2**20)
    monkeypatch.setattr(layers, "free_bytes", lambda _: 2 * 10**9)
    with pytest.raises(
        CannotMeasureError,
        match=r"1 x 16777216 tokens of 4 heads need 17\.18 GB on cpu .* only 2\.00 GB are free",
    ):
        Bench(["cpu"], "torch").measure(layer_shard(plan, 0, 0), 0, never)


def test_measuring_waits_for_the_lock_and_can_be_interrupted() -> None:
    bench, shard = Bench(["cpu"], "torch"), layer_shard(tiny_plan(), 0, 0)
    with timing_lock("cpu", never), pytest.raises(InterruptedWait):
        bench.measure(shard, 0, lambda: True)


@st.composite
def shared_out(draw: st.DrawFn) -> Plan:
    """Heads whole and divided at random over three devices, under every selection."""
    devices, heads = 3, 4
    parts = st.lists(st.integers(0, 8), min_size=devices, max_size=devices).filter(any)
    weights = draw(st.lists(parts, min_size=heads, max_size=heads))
    placement: Placement = [
        [(d, w / sum(each)) for d, w in enumerate(each) if w] for each in weights
    ]
    chosen = draw(
        st.sampled_from([Pooled(), VerticalSlash(), Sampled(), SinkLocal(sink_tokens=64)])
    )
    return tiny_plan(
        placement,
        layers=1,
        kv_heads=draw(st.sampled_from([1, 2, 4])),
        devices=devices,
        budgets=draw(st.lists(st.integers(1, 400), min_size=heads, max_size=heads)),
        context_tokens=draw(st.integers(2, 330)),
        batch_size=draw(st.integers(1, 4)),
        phase=draw(st.sampled_from(["prefill", "decode"])),
        deployment=draw(st.sampled_from(DEPLOYMENTS)),
        piece_tokens=draw(st.sampled_from([64, 32, 16])),
    ).model_copy(update={"selection": chosen})


@given(shared_out())
@settings(max_examples=40, deadline=None)
def test_reported_work_is_what_the_service_expects_of_the_plan(plan: Plan) -> None:
    bench, expected = Bench(["cpu"] * 3, "torch"), shard_work(plan, 0)
    for device, wanted in enumerate(expected):
        sample = bench.measure(layer_shard(plan, device, 0), device, never)
        if sample is None:
            assert not wanted.any()
            continue
        found = np.array([sample.work[name] for name in FEATURES])
        # Of a prompt the service knows rows of blocks; the last block may be short of tokens.
        by_token = ("kv_bytes", "projection_flops")
        exact = [plan.workload.phase == "decode" or name not in by_token for name in FEATURES]
        np.testing.assert_allclose(found[exact], wanted[exact], rtol=1e-9)


@pytest.mark.parametrize("faster", ["pytorch", "own"])
def test_dense_heads_go_to_the_faster_of_two_attentions(
    faster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried on the first run; time is told by a clock that one of the two moves."""
    plan = tiny_plan(budgets=[64, 256, 256, 256])
    now, calls = 0.0, 0
    dense_attention = entry.dense_attention

    def counted(*arguments: Any) -> bool:
        nonlocal now, calls
        now += 2.0 if faster == "own" else 0.5
        calls += 1
        return dense_attention(*arguments)

    def own(*arguments: Any, **options: Any) -> AttentionResult:
        nonlocal now
        now += 1.0 if arguments[2].apart is None else 0.0
        return attend(*arguments, **options)

    monkeypatch.setattr(entry, "dense_attention", counted)
    monkeypatch.setattr(layers, "attend", own)
    monkeypatch.setattr(layers, "prepare", lambda *x, **o: prepare(*x, **(o | {"sdpa": True})))
    monkeypatch.setattr(bench_module, "_clock", lambda _: lambda: now)
    bench, shard = Bench(["cpu"], "triton"), layer_shard(plan, 1, 0)
    first = bench.measure(shard, 0, never)
    tried = calls
    assert tried == 1 + bench_module.TURNS + (faster == "pytorch")
    again = bench.measure(shard, 0, never)
    assert calls == tried + (faster == "pytorch")
    for sample in (first, again):
        assert sample is not None
        assert sample.seconds == (0.5 if faster == "pytorch" else 1.0)


def test_a_model_runs_on_all_cores_and_shares_on_one() -> None:
    class Watching:
        def next_round(self, *_: object) -> dict[int, Activations]:
            seen.append(torch.get_num_threads())
            raise CannotMeasureError("seen")

    seen: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        bench = Bench(["cpu"], "torch", traffic=cast("Traffic", Watching()))
        assert torch.get_num_threads() == 1
        with pytest.raises(CannotMeasureError, match="seen"):
            bench.next_round(tiny_plan(), [0], never)
        assert (seen, torch.get_num_threads()) == ([2], 1)
    finally:
        torch.set_num_threads(before)
