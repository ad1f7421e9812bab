"""Key pieces smaller than query blocks: asked for, measured, stated, verified, and refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from profiles.cost.work import INDEX
from profiles.measurement import Measurement
from profiles.model import ModelProfile
from profiles.selection import Sampled, Strided
from solver.cli import app
from solver.planning.predict import predicted_loads, shard_work
from solver.planning.scenarios import WorkloadError
from solver.plans import Plan, Step
from solver.request import PlanRequest
from solver.verifier import verify
from tests.solver.budgets.builders import curved
from tests.solver.budgets.test_small_blocks import MODEL
from tests.solver.profiles import budgets_profile, faults, plan_of, stated_budgets
from tests.solver.test_block_tokens import MEASURED
from tests.solver.verifier.handmade import sealed

runner = CliRunner()
SAMPLED = Sampled(rows=2)
BASE = {"profile": "x", "gpus": 2, "context_tokens": 1024}
BEFORE = Path(__file__).with_name("plan_before_pieces.json")
POLICIES: dict[str, dict[str, Any]] = {
    "profile": {"recovery": 0.8},
    "uniform": {"tokens": 200},
    "recovery": {"recovery": 0.7},
    "max_min": {"tokens": 200, "floor_tokens": 16},
    "max_min_shifting": {"tokens": 200, "floor_tokens": 16},
    "least_error": {"tokens": 200, "floor_tokens": 16},
    "elastic": {"density": 0.4},
}
FINE = {"block_tokens": 64, "piece_tokens": 16}


def measured(block: int, piece: int) -> ModelProfile:
    sizes = {"block_tokens": block, "piece_tokens": piece}
    record = Measurement.model_validate({**MEASURED.model_dump(), **sizes})
    return curved().model_copy(update={"measurement": record})


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("context", [1000, 2048])
def test_every_policy_gives_whole_pieces_that_verify(policy: str, phase: str, context: int) -> None:
    plan = plan_of(
        MODEL,
        context_tokens=context,
        phase=phase,
        budget={"policy": policy, **POLICIES[policy]},
        placement={"divisible": True},
        gpus=3,
        time_limit_s=0.5,
        **FINE,
    )
    assert (plan.workload.block_tokens, plan.workload.piece_tokens) == (64, 16)
    assert faults(plan) == []
    budgets = np.array(plan.budgets)
    assert ((budgets % 16 == 0) | (budgets == context)).all()
    # A query block's own pieces are always in its list; a decoded token has no block.
    assert budgets.min() >= (64 if phase == "prefill" else 1)
    if policy == "max_min":
        assert (budgets % 64 != 0).any()


def test_a_shared_total_is_kept_in_pairs_and_better_used() -> None:
    """The same total in pairs: finer pieces leave the least head with no less."""
    budget = {"policy": "max_min", "tokens": 256}
    coarse, fine = (
        plan_of(MODEL, context_tokens=2048, budget=budget, block_tokens=64, **more)
        for more in ({}, {"piece_tokens": 16})
    )
    assert coarse.recovery is not None
    assert fine.recovery is not None
    for layer, least in enumerate(coarse.recovery.least):
        assert fine.recovery.least[layer] >= least

    def pairs(plan: Plan) -> np.ndarray:
        rows = -(-(np.arange(2048) + 1) // 64) * 64
        return np.minimum(np.array(plan.budgets)[..., None], rows).sum(axis=-1)

    uniform = np.minimum(256, -(-(np.arange(2048) + 1) // 64) * 64).sum()
    for plan in (coarse, fine):
        assert (pairs(plan).sum(axis=1) <= 8 * uniform).all()


@pytest.mark.parametrize("retention", ["full", "budget"])
def test_memory_holds_whole_pieces(retention: str) -> None:
    plan = plan_of(
        MODEL,
        context_tokens=1024,
        budget={"policy": "max_min", "tokens": 200, "floor_tokens": 16},
        placement={"memory": {"kv_retention": retention}},
        **FINE,
    )
    assert plan.memory is not None
    assert faults(plan) == []


def test_idle_time_is_filled_in_pieces() -> None:
    budget = {"policy": "max_min", "tokens": 256, "fill": True, "floor_tokens": 32}
    plan = plan_of(MODEL, context_tokens=1024, gpus=3, budget=budget, **FINE)
    assert plan.filled is not None
    assert plan.filled.added_tokens > 0
    assert faults(plan) == []
    assert (np.array(plan.budgets) % 64 != 0).any()


def test_several_workloads_are_in_the_same_pieces() -> None:
    plan = plan_of(
        MODEL,
        workloads=[
            {"context_tokens": 1024},
            {"context_tokens": 900, "phase": "decode", "batch_size": 5},
            {"context_tokens": 40},
        ],
        budget={"policy": "recovery", "recovery": 0.6},
        placement={"divisible": True},
        gpus=3,
        **FINE,
    )
    steps = [plan.workload, *(other.workload for other in plan.other_workloads)]
    assert {(step.block_tokens, step.piece_tokens) for step in steps} == {(64, 16)}
    assert faults(plan) == []


def test_a_decode_knows_no_blocks() -> None:
    """Its list is of pieces, whatever the rows that a prefill would share it with."""
    fine, small = (
        plan_of(
            MODEL,
            phase="decode",
            context_tokens=1000,
            batch_size=3,
            budget={"policy": "max_min", "tokens": 200},
            placement={"divisible": True},
            gpus=3,
            seed=1,
            **sizes,
        )
        for sizes in (FINE, {"block_tokens": 16})
    )
    assert fine.budgets == small.budgets
    assert fine.costs == small.costs
    assert fine.layers == small.layers
    for layer in range(4):
        np.testing.assert_array_equal(shard_work(fine, layer), shard_work(small, layer))


def test_the_work_of_shards_is_counted_row_by_row() -> None:
    plan = plan_of(
        MODEL.model_copy(update={"selection": SAMPLED}),
        context_tokens=1000,
        gpus=3,
        budget={"policy": "max_min", "tokens": 200, "floor_tokens": 16},
        placement={"divisible": True},
        **FINE,
    )
    assert sum(plan.divisions) > 0
    for layer, placed in enumerate(plan.layers):
        dense, gathered, scored, rows = (np.zeros(3) for _ in range(4))
        for entries, budget in zip(placed.heads, plan.budgets[layer], strict=True):
            lists = [min(-(-budget // 16), 63, 4 * (row + 1)) for row in range(16)]
            seen = [min(63, 4 * (row + 1)) for row in range(16)]
            done, first, share = np.cumsum([0, *lists]) / sum(lists), 0, 0.0
            for entry in entries:
                share += entry.share
                last = int(np.abs(done - share).argmin())
                for listed, all_there in zip(lists[first:last], seen[first:last], strict=True):
                    own = min(4, all_there - 4 * ((all_there - 1) // 4))
                    chosen = listed - own if listed < all_there else 0
                    gathered[entry.device] += 4 * 64 * 64 * 16 * chosen
                    dense[entry.device] += 4 * 64 * 64 * 16 * (listed - chosen)
                candidates = sum(seen[first:last]) if budget < 1000 else 0
                scored[entry.device] += candidates
                rows[entry.device] += last - first
                first = last
        work = shard_work(plan, layer)
        assert work[:, INDEX["dense_tile_flops"]] == pytest.approx(dense)
        assert work[:, INDEX["gathered_tile_flops"]] == pytest.approx(gathered)
        assert work[:, INDEX["sampled_flops"]] == pytest.approx(2 * 2 * 16 * 64 * scored)
        assert work[:, INDEX["scored_blocks"]] == pytest.approx(scored)
        assert work[:, INDEX["query_blocks"]] == pytest.approx(rows)
    rates = {"h200": _rates()}
    found = predicted_loads(plan, rates)
    assert found == pytest.approx(np.array([layer.loads_s for layer in plan.layers]))


def _rates() -> Any:
    from profiles.catalogue import catalogue_rates

    return catalogue_rates(["h200"], "prefill")["h200"]


def test_small_pieces_cost_what_they_leave_out() -> None:
    """A budget of 80 tokens: two blocks of 64, or five pieces of 16."""
    profile = stated_budgets(np.full((1, 4), 80.0), 4)
    coarse, fine = (
        plan_of(profile, context_tokens=1024, block_tokens=64, **more)
        for more in ({}, {"piece_tokens": 16})
    )
    assert coarse.budgets == [[128] * 4]
    assert fine.budgets == [[80] * 4]
    pairs = [(4 + 5 * 15) * 16, (1 + 2 * 15) * 64]
    kinds = [INDEX[f"{kind}_tile_flops"] for kind in ("dense", "gathered")]
    flops = [shard_work(plan, 0)[:, kinds].sum() for plan in (fine, coarse)]
    assert flops[0] / flops[1] == pytest.approx(pairs[0] / pairs[1])


# What requests ask for.


@pytest.mark.parametrize(
    ("profile", "asked", "sizes"),
    [
        (curved(), {}, (64, 64)),
        (curved(), {"piece_tokens": 16}, (64, 16)),
        (curved(), {"block_tokens": 128}, (128, 128)),
        (curved(), {"block_tokens": 128, "piece_tokens": 64}, (128, 64)),
        (measured(64, 16), {}, (64, 16)),
        (measured(64, 16), {"block_tokens": 64}, (64, 64)),
        (measured(64, 16), {"block_tokens": 128}, (128, 128)),
        (measured(64, 16), {"piece_tokens": 32}, (64, 32)),
        (measured(128, 128), {"piece_tokens": 64}, (128, 64)),
    ],
)
def test_sizes_are_asked_for_or_measured(
    profile: ModelProfile, asked: dict[str, int], sizes: tuple[int, int]
) -> None:
    plan = plan_of(profile, method="greedy", context_tokens=1000, **asked)
    assert (plan.workload.block_tokens, plan.workload.piece_tokens) == sizes
    assert faults(plan) == []


@pytest.mark.parametrize("piece", [0, 8, 48, 256, 16.5, "16"])
def test_other_pieces_are_refused(piece: object) -> None:
    with pytest.raises(ValidationError, match="piece_tokens"):
        PlanRequest.model_validate({**BASE, "piece_tokens": piece})


def test_pieces_that_do_not_divide_blocks_are_refused() -> None:
    words = "piece_tokens: 64 does not divide block_tokens, 32"
    with pytest.raises(ValidationError, match=words):
        PlanRequest.model_validate({**BASE, "block_tokens": 32, "piece_tokens": 64})
    with pytest.raises(WorkloadError, match=f"{words} of profile 'tested'; give block_tokens too"):
        plan_of(measured(32, 16), piece_tokens=64)
    step = {"context_tokens": 1, "phase": "prefill", "batch_size": 1}
    with pytest.raises(ValidationError, match="piece_tokens: 48 does not divide block_tokens, 64"):
        Step.model_validate(
            {**step, "deployment": "disaggregated", "block_tokens": 64, "piece_tokens": 48}
        )


def test_strided_blocks_are_square() -> None:
    strided = Strided(block_tokens=64, local_blocks=16, vert_stride=8)
    profile = budgets_profile().model_copy(update={"selection": strided})
    with pytest.raises(WorkloadError, match=r"piece_tokens: 16 in blocks of 64, but the strided"):
        plan_of(profile, piece_tokens=16)
    fine = budgets_profile().model_copy(update={"measurement": measured(64, 16).measurement})
    other = {"context_tokens": 512, "profile": profile}
    with pytest.raises(WorkloadError, match="as wide as they are high; give block_tokens alone"):
        plan_of(fine, workloads=[{"context_tokens": 1024}, other])
    assert plan_of(profile, block_tokens=64, method="greedy").selection == strided
    uniform = {"policy": "uniform", "tokens": 1024}
    assert faults(plan_of(profile, piece_tokens=16, budget=uniform)) == []


def test_requests_without_pieces_keep_their_digests() -> None:
    """`test_block_tokens` has digests from before; here, that asking for pieces changes them."""
    digests = {
        PlanRequest.model_validate({**BASE, **more}).digest(["p"], ["v"])
        for more in (
            {},
            {"block_tokens": 64},
            {"piece_tokens": 16},
            {"piece_tokens": 32},
            {"block_tokens": 64, "piece_tokens": 16},
        )
    }
    assert len(digests) == 5
    asked = PlanRequest.model_validate(BASE)
    assert "piece_tokens" not in asked.model_dump(mode="json")


# What plans state.


def test_both_sizes_are_stated_where_they_differ() -> None:
    same = plan_of(budgets_profile(), block_tokens=64, piece_tokens=64, method="greedy")
    fine = plan_of(budgets_profile(), **FINE, method="greedy")
    assert "piece_tokens" not in same.model_dump_json()
    assert same.workload.piece_tokens == 64
    assert fine.model_dump(mode="json")["workload"]["piece_tokens"] == 16
    assert Plan.parse(fine.model_dump_json(), "here") == fine
    assert same.id == plan_of(budgets_profile(), method="greedy").id != fine.id
    assert fine.workload.workload.block_pieces == 4


def test_a_plan_made_before_pieces_keeps_its_id_and_verifies() -> None:
    """Divided, in blocks of 32, for a prefill and a decode, by sampled rows."""
    text = BEFORE.read_text()
    plan = Plan.parse(text, str(BEFORE))
    assert verify(json.loads(text)).faults == []
    assert plan.identified().id == plan.id
    assert json.loads(plan.model_dump_json()) == json.loads(text)
    assert plan.workload.piece_tokens == plan.workload.block_tokens == 32
    again = plan_of(
        budgets_profile(layers=1, heads=5, kv_heads=5).model_copy(update={"selection": SAMPLED}),
        workloads=[
            {"context_tokens": 4000},
            {"context_tokens": 1500, "phase": "decode", "batch_size": 3},
        ],
        block_tokens=32,
        gpus=3,
        placement={"divisible": True},
        # Before heads of a prefill were dense where that is no slower.
        budget={"as_chosen": True},
        seed=1,
        time_limit_s=120,  # proved in half a second of an idle machine
    )
    assert again.workload == plan.workload
    assert again.budgets == plan.budgets
    assert np.array(again.costs.head_s) == pytest.approx(np.array(plan.costs.head_s))
    assert again.makespan_s == pytest.approx(plan.makespan_s)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"piece_tokens": 48}, "workload.piece_tokens: 48 does not divide"),
        ({"piece_tokens": 128}, "workload.piece_tokens: 128 does not divide"),
        ({"piece_tokens": 0}, "workload.piece_tokens: is not a whole number"),
        ({"piece_tokens": None}, "workload.piece_tokens: is not a whole number"),
        ({"piece_tokens": 64}, "does not end with a row"),
        ({"block_tokens": 128}, "does not end with a row"),
    ],
)
def test_lies_about_pieces_are_found(change: dict[str, Any], fault: str) -> None:
    plan = plan_of(
        stated_budgets(np.full((1, 5), 1120.0), 5),
        context_tokens=32768,
        gpus=3,
        placement={"divisible": True, "copies": "free"},
        **FINE,
    )
    assert sum(plan.divisions) > 0
    lie = plan.model_dump(mode="json")
    lie["workload"] |= change
    assert any(fault in found for found in verify(sealed(lie)).faults)


def test_budgets_are_whole_pieces() -> None:
    plan = plan_of(stated_budgets(np.full((1, 4), 80.0), 4), **FINE).model_dump(mode="json")
    plan["budgets"][0][1] = 72
    [fault] = verify(sealed(plan)).faults
    assert fault == "layer 0: head 1: budget 72 is not whole pieces within 8192"


def test_a_strided_plan_in_pieces_does_not_verify() -> None:
    plan = plan_of(budgets_profile(), **FINE, method="greedy").model_dump(mode="json")
    strided = Strided(block_tokens=64, local_blocks=16, vert_stride=8)
    plan["selection"] = strided.model_dump(mode="json")
    assert any("blocks are square" in fault for fault in verify(sealed(plan)).faults)


# On the command line.


def unwrapped(table: str) -> str:
    """The words of a table, whatever its width."""
    return " ".join(table.replace("│", " ").split())


def test_the_flag_reaches_the_plan(tmp_path: Path) -> None:
    profile, out = tmp_path / "profile.json", tmp_path / "plan.json"
    measured(64, 64).save(profile)
    flags = ["plan", "-p", str(profile), "--gpus", "2", "--context", "1024", "--method", "greedy"]
    flags += ["--budget-policy", "max_min", "--budget-tokens", "200", "--piece-tokens", "16"]
    shown = runner.invoke(app, [*flags, "-o", str(out)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "disaggregated, blocks of 64 over pieces of 16" in unwrapped(shown.stdout)
    assert json.loads(out.read_text())["workload"]["piece_tokens"] == 16
    assert runner.invoke(app, ["verify", str(out)]).exit_code == 0


def test_compare_says_both_sizes(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    measured(64, 64).save(profile)
    flags = ["compare", "-p", str(profile), "--gpus", "2", "--context", "512"]
    flags += ["--methods", "greedy,divided", "--deployments", "disaggregated"]
    same, fine = (
        runner.invoke(app, [*flags, *more], env={"COLUMNS": "200"})
        for more in ([], ["--block-tokens", "128", "--piece-tokens", "64"])
    )
    assert same.exit_code == fine.exit_code == 0, fine.output
    assert "pieces" not in same.stdout
    assert "512 tokens, blocks of 128 over pieces of 64 on h200" in unwrapped(fine.stdout)
