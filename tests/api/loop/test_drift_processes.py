"""The task mix shifts under real processes: seen, planned for, and quality back."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.demo.children import free_port
from tests.forked import Forked

pytest.importorskip("torch", reason="executors need torch")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 120.0
EASY, HARD = 6, 60
SETTINGS = {
    "HPLB_REFINE_COOLDOWN_S": "0",
    "HPLB_REFINE_MIN_GAIN": "0.99",  # only drift moves anything here
    "HPLB_DRIFT_WINDOW": "4",
    "HPLB_DRIFT_MAX_SLOWDOWN": "100",
}


class Processes:
    """Planner and node as an operator starts them; all end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.started: list[Forked] = []
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=120, trust_env=False
        )

    def start(self, name: str, *arguments: str) -> Forked:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = Forked(
                arguments,
                folder=ROOT,
                environment={**os.environ, **SETTINGS, "TMPDIR": str(self.folder)},
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
        self.started.append(process)
        return process

    def serve(self) -> Forked:
        url = f"sqlite:///{self.folder / 'hplb.db'}"
        process = self.start("planner", "serve", "--port", str(self.port), "--database-url", url)
        self.until(lambda: self.client.get("/readyz").status_code == 200)
        return process

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                if found := condition():
                    return found
            except httpx.TransportError:
                pass
            logs = [path.read_text()[-3000:] for path in self.folder.glob("*.log")]
            assert time.monotonic() < end, "\n".join(logs)
            time.sleep(0.1)

    def view(self) -> dict[str, Any]:
        view: dict[str, Any] = self.client.get("/deployments/d").json()
        return view


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    for process in found.started:
        process.kill()
        process.wait()
    found.client.close()


def test_a_shift_of_the_task_mix_is_seen_and_planned_for(
    processes: Processes, tmp_path: Path
) -> None:
    from tests.executor import mixes

    model = mixes.model(tmp_path / "model")
    profile = mixes.measured(model, [mixes.easy(seed) for seed in range(2)])
    shifting = mixes.prompts(
        tmp_path / "prompts.jsonl",
        [mixes.easy(100 + n) for n in range(EASY)],
        [mixes.hard(200 + n) for n in range(HARD)],
    )
    planner = processes.serve()
    asked = {
        "profile": profile.model_dump(mode="json"),
        "gpus": 2,
        "device_type": "cpu",
        "context_tokens": mixes.CONTEXT,
        "budget": {"policy": "profile", "recovery": 0.9},
        "method": "greedy",
    }
    plan = processes.client.post("/plan", json=asked).json()
    node = ["executor", "--server", f"http://127.0.0.1:{processes.port}", "--node-id", "n"]
    node += ["--devices", "2", "--device-type", "cpu", "--state-dir", str(tmp_path / "state")]
    processes.start("node", *node, "--model", str(model), "--data", str(shifting))
    processes.until(lambda: processes.client.get("/nodes").json()["nodes"])
    wanted = {"plan_id": plan["id"], "nodes": ["n"], "rounds": 2, "every_s": 0.5}
    answer = processes.client.put("/deployments/d", json=wanted)
    assert answer.status_code == 200, answer.text

    # The first task is the one the profile was measured on: what it promises is kept.
    first = processes.until(lambda: processes.view()["recovery_drift"])
    assert (first["raised"], first["heads_drifted"]) == (False, 0)
    # A planner killed on the way takes up where it was, and the rounds meanwhile were spooled.
    planner.kill()
    planner.wait()
    processes.serve()

    def moved() -> dict[str, Any] | None:
        view = processes.view()
        return view if view["generation"] > 1 else None

    history = processes.until(moved)["history"]
    assert history[1]["reason"].startswith("moved: drift, least recovery")
    text = processes.client.get("/metrics").text
    assert 'hplb_recovery_drift_raises_total{deployment="d"}' in text

    def kept() -> dict[str, Any] | None:
        view = processes.view()
        drift = view["recovery_drift"]
        full = drift is not None and drift["heads"] == 8 and drift["rounds"] >= 3
        return view if full and not drift["raised"] else None

    after = processes.until(kept)
    live = processes.client.get(f"/plans/{after['plan_id']}").json()
    assert live["profile"]["name"] == "magnets.corrected"
    assert "observed in" in live["profile"]["source"]
    for layer in range(mixes.LAYERS):
        for head in range(mixes.HEADS):
            before, now = plan["budgets"][layer][head], live["budgets"][layer][head]
            if head in mixes.SEEKING:
                assert now > 2 * before
            else:
                assert now == pytest.approx(before, abs=2 * mixes.BLOCK)
    assert after["recovery_drift"]["observed_min"] > 0.8
