"""Real activations: the model's own q, K and V, at the right heads, and what blocks hold."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from transformers import AutoModel

from api.client.bodies import Assignment, DeviceSample
from executor.errors import CannotMeasureError
from executor.node.bench import Bench
from executor.node.duty import Duty
from executor.node.traffic import Traffic
from profiles.cost.work import Deployment, Workload
from profiles.errors import HplbError
from profiles.measuring.loading import dtype_for
from profiles.tasks.prompts import Prompt
from solver.plans import Plan
from tests.executor import mixes
from tests.executor.plans import assignment, tiny_plan

BUDGETS = [64, 256, 128, 256]
DIVIDED = [[(1, 1.0)], [(0, 1.0)], [(0, 0.5), (1, 0.5)], [(1, 1.0)]]
TOKENS = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixes.model(tmp_path_factory.mktemp("model"))


def traffic(folder: Path, *prompts: Prompt) -> Traffic:
    return Traffic(str(folder), prompts, "cpu")


def of_model(folder: Path, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Layer 0's scaled logits by hand, [heads, tokens, tokens], and its values."""
    made = AutoModel.from_pretrained(folder)
    layer = made.layers[0]
    with torch.no_grad():
        x = layer.input_layernorm(made.embed_tokens(torch.tensor(ids)))
        q = (x @ layer.self_attn.q_proj.weight.T).view(len(ids), mixes.HEADS, mixes.DIM)
        k = (x @ layer.self_attn.k_proj.weight.T).view(len(ids), mixes.KV_HEADS, mixes.DIM)
        v = (x @ layer.self_attn.v_proj.weight.T).view(len(ids), mixes.KV_HEADS, mixes.DIM)
    k = k.repeat_interleave(mixes.HEADS // mixes.KV_HEADS, dim=1)
    logits = torch.einsum("qhd,khd->hqk", q, k) / mixes.DIM**0.5
    return logits.double(), v.transpose(0, 1)


def ids_of(*prompts: Prompt) -> list[int]:
    return [mixes.WORDS.index(word) for prompt in prompts for word in prompt.text.split()]


def tiny(deployment: Deployment = "disaggregated", batch_size: int = 1) -> Plan:
    return tiny_plan(
        DIVIDED,
        budgets=BUDGETS,
        context_tokens=TOKENS,
        deployment=deployment,
        batch_size=batch_size,
    )


@pytest.mark.parametrize("accelerator", ["cpu", "cuda:0"])
def test_a_model_runs_in_what_models_are_measured_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    asked = []

    def reading(_folder: Path, **options: Any) -> None:
        asked.append(options["dtype"])
        raise ValueError("read no further")

    monkeypatch.setattr(AutoModel, "from_pretrained", reading)
    with pytest.raises(CannotMeasureError, match="read no further"):
        Traffic(str(folder), [mixes.easy(1)], accelerator)
    assert asked == [getattr(torch, dtype_for(accelerator))]


def test_a_model_that_is_not_whole(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    torn = shutil.copytree(folder, tmp_path / "torn", ignore=shutil.ignore_patterns("*.safe*"))
    (torn / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(CannotMeasureError, match=r"torn: cannot be loaded: .*header"):
        traffic(torn, mixes.easy(1))
    lost = shutil.copytree(folder, tmp_path / "lost", ignore=shutil.ignore_patterns("*.safe*"))
    kept = {
        name: w for name, w in load(whole).items() if not name.endswith("0.self_attn.q_proj.weight")
    }
    save_file(kept, lost / "model.safetensors", {"format": "pt"})
    with pytest.raises(CannotMeasureError, match=r"1 weights are missing .*q_proj"):
        traffic(lost, mixes.easy(1))


def test_activations_are_the_models(folder: Path) -> None:
    prompt = mixes.hard(3, TOKENS)
    source = traffic(folder, prompt)
    found = source.next_round(source.architecture, Workload(TOKENS), [0])
    assert list(found) == [0]
    real, (logits, values) = found[0], of_model(folder, ids_of(prompt))
    keys = real.keys.repeat_interleave(mixes.HEADS // mixes.KV_HEADS, dim=0)
    made = (real.q @ keys.transpose(1, 2)).double() / mixes.DIM**0.5
    # The slowest turn is not quite none.
    torch.testing.assert_close(made, logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(real.values, values)


def test_prompts_fill_the_context_in_turn_and_keep_their_end(folder: Path) -> None:
    short, long = mixes.easy(1, 100), mixes.hard(2, 300)
    source = traffic(folder, short, long)
    workload = Workload(TOKENS, batch_size=2)
    real = source.next_round(source.architecture, workload, [0])[0]
    assert real.q.shape == (mixes.HEADS, 2 * TOKENS, mixes.DIM)
    # First short and long, cut to the last of the long one; then short and long again.
    whole = ids_of(short, long)[-TOKENS:]
    _, values = of_model(folder, whole + whole)
    torch.testing.assert_close(real.values, values)


def test_the_same_prompts_are_run_through_the_model_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = mixes.easy(1, TOKENS), mixes.hard(2, TOKENS)
    for prompts, runs in ([one], [1, 1, 2, 2]), ([one, two], [1, 2, 3, 4]):
        source, counts = traffic(folder, *prompts), []
        whole = [traffic(folder, prompts[n % len(prompts)]) for n in range(4)]
        calls = count_calls(source, monkeypatch)
        for fresh, layers in zip(whole, ([0], [0], [0, 1], [0, 1]), strict=True):
            found = source.next_round(source.architecture, Workload(TOKENS), layers)
            wanted = fresh.next_round(source.architecture, Workload(TOKENS), layers)
            assert list(found) == layers
            assert all(torch.equal(found[n].q, wanted[n].q) for n in layers)
            counts.append(len(calls))
        assert counts == runs


def count_calls(source: Traffic, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever the model runs."""
    calls: list[int] = []
    model = source._model
    monkeypatch.setattr(source, "_model", Counted(model, calls))
    return calls


class Counted:
    def __init__(self, model: Any, calls: list[int]) -> None:
        self.model, self.calls = model, calls

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls.append(1)
        return self.model(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def brute_force(
    folder: Path, prompts: list[Prompt], sample: DeviceSample, plan: Plan
) -> dict[int, float]:
    """Recovery of whole heads that look at everything in their budget's blocks alike: by hand."""
    found = {}
    for head in (report.head for report in sample.heads or []):
        if plan.budgets[sample.layer][head] >= TOKENS:
            found[head] = 1.0
        elif plan.budgets[sample.layer][head] == plan.workload.block_tokens:
            # One block of budget is the query block's own.
            held = []
            for prompt in prompts:
                logits, _ = of_model(folder, ids_of(prompt)[-TOKENS:])
                for part in range(32):
                    row = int((part + (part + 0.5) * (1 + 5**0.5) / 2 % 1) / 32 * TOKENS)
                    shares = logits[head, row, : row + 1].softmax(0)
                    own = row // plan.workload.block_tokens * plan.workload.block_tokens
                    held.append(float(shares[own:].sum()))
            found[head] = sum(held) / len(held)
    return found


@pytest.mark.parametrize("deployment", ["disaggregated", "tensor_parallel"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_recovery_is_that_of_the_right_heads(
    folder: Path, deployment: Deployment, batch_size: int
) -> None:
    prompts = [mixes.hard(4, TOKENS), mixes.easy(5, TOKENS)][:batch_size]
    plan = tiny(deployment, batch_size)
    bench = Bench(["cpu", "cpu"], "torch", traffic=traffic(folder, *prompts))
    samples = Duty(assignment(plan), bench).measure_round(lambda: False)
    assert samples is not None
    assert [(s.layer, s.device) for s in samples] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for sample in samples:
        assert sample.heads is not None
        reports = {report.head: report for report in sample.heads}
        assert list(reports) == ([1, 2] if sample.device == 0 else [0, 2, 3])
        for head, expected in brute_force(folder, prompts, sample, plan).items():
            assert reports[head].recovery == pytest.approx(expected, abs=1e-3)
            assert reports[head].rows == batch_size * TOKENS
            assert reports[head].tiles == batch_size * (4 if head == 0 else 10)
    whole = [report for sample in samples[:2] for report in sample.heads or [] if report.head == 2]
    assert sum(report.rows for report in whole) == batch_size * TOKENS
    assert sum(report.tiles for report in whole) == batch_size * 7


def test_work_and_samples_are_otherwise_those_of_random_tensors(folder: Path) -> None:
    wanted = assignment(tiny())
    random = Duty(wanted, Bench(["cpu", "cpu"], "torch")).measure_round(lambda: False)
    source = traffic(folder, mixes.hard(4, TOKENS))
    real = Duty(wanted, Bench(["cpu"] * 2, "torch", traffic=source)).measure_round(lambda: False)
    assert random is not None
    assert real is not None
    assert all(sample.heads is None for sample in random)
    assert [sample.work for sample in random] == [sample.work for sample in real]
    assert "heads" not in random[0].model_dump()
    assert DeviceSample.model_validate_json(real[0].model_dump_json()) == real[0]


def test_the_task_shows_in_the_heads_that_seek(folder: Path) -> None:
    seen = []
    for prompt in (mixes.easy(6, TOKENS), mixes.hard(6, TOKENS)):
        wanted = assignment(tiny(), layers=[0])
        bench = Bench(["cpu"] * 2, "torch", traffic=traffic(folder, prompt))
        samples = Duty(wanted, bench).measure_round(lambda: False) or []
        heads = [r for sample in samples for r in sample.heads or [] if r.head == 2]
        rows = sum(r.rows for r in heads)
        seen.append(sum(r.rows * r.recovery for r in heads) / rows)
    assert seen[0] > 0.95
    assert seen[1] < 0.85


def test_decodes_stay_random_and_report_nothing(folder: Path) -> None:
    decode = assignment(tiny_plan(phase="decode", batch_size=2))
    bench = Bench(["cpu"] * 2, "torch", traffic=traffic(folder, mixes.hard(1, TOKENS)))
    samples = Duty(decode, bench).measure_round(lambda: False)
    assert samples is not None
    assert all(sample.heads is None for sample in samples)


def test_a_plan_of_another_shape(folder: Path) -> None:
    other: Assignment = assignment(tiny_plan(layers=3, kv_heads=4))
    bench = Bench(["cpu"] * 2, "torch", traffic=traffic(folder, mixes.hard(1, TOKENS)))
    with pytest.raises(CannotMeasureError, match="2 layers, the plan 3; 2 kv_heads, the plan 4"):
        Duty(other, bench).measure_round(lambda: False)


def test_a_context_beyond_the_models_positions(folder: Path) -> None:
    source = traffic(folder, mixes.hard(1, TOKENS))
    with pytest.raises(CannotMeasureError, match="positions for 2048 tokens, the plan is for 4096"):
        source.next_round(source.architecture, Workload(4096), [0])


def test_activations_that_do_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.node.traffic.free_bytes", lambda _: 1000)
    source = traffic(folder, mixes.hard(1, TOKENS))
    with pytest.raises(CannotMeasureError, match="deploy fewer layers"):
        source.next_round(source.architecture, Workload(TOKENS), [0])


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(HplbError, match="config"):
        traffic(tmp_path, mixes.hard(1))
