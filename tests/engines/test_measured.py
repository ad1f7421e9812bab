"""What a served model's heads recover reaches a planner, which holds it against the promise."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from executor.weights.apply import apply
from solver.plans import Plan
from tests.api.served import serving_in
from tests.engines.made import SHAPE, VOCABULARY, model, quiet
from tests.engines.test_vllm import answering

PATIENCE_S = 180.0
PROMPT, MADE = 700, 64
CONTEXTS = (256, 1024)
SHARES = np.array([1 / 8, 1 / 4, 1 / 2, 3 / 4])


def asked(name: str, recovery: np.ndarray) -> dict[str, Any]:
    """A plan for the small model on two ranks, each head with 128 tokens, which recover so much of
    SHARES of a context as is promised."""
    curve = recovery.tolist()
    return {
        "profile": {
            "schema_version": 1,
            "name": name,
            "architecture": SHAPE.model_dump(mode="json"),
            "heads": {
                "form": "recovery_curves",
                "context_tokens": list(CONTEXTS),
                "budget_tokens": [(SHARES * context).astype(int).tolist() for context in CONTEXTS],
                "recovery": [[[curve, curve]] * SHAPE.query_heads] * SHAPE.layers,
            },
            "source": "made up for the tests",
            "synthetic": True,
        },
        "gpus": 2,
        "device_type": "cpu",
        "context_tokens": 1024,
        "block_tokens": 64,
        "piece_tokens": 16,
        "budget": {"policy": "uniform", "tokens": 128},
        "placement": {"slots": 2, "divisible": True},
        "time_limit_s": 5,
    }


class Service:
    """A planner, and an engine that is asked for something whenever the planner is waited for."""

    def __init__(self, planner: httpx.Client, engine: httpx.Client, folder: Path) -> None:
        self._planner, self._engine, self._folder = planner, engine, folder
        self._draw = random.Random(0)

    def deploy(self, plan_id: str) -> None:
        wanted = {"plan_id": plan_id, "nodes": ["e-0", "e-1"], "refine": False}
        self._planner.put("/deployments/d", json=wanted).raise_for_status()

    def until(self, there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The newest verdict on the live generation, once it is that."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            tokens = [self._draw.randrange(1, VOCABULARY) for _ in range(PROMPT)]
            body = {"model": str(self._folder), "prompt": tokens, "max_tokens": MADE}
            self._engine.post(
                "/v1/completions", json=body | {"ignore_eos": True}
            ).raise_for_status()
            drift = self._planner.get("/deployments/d").json()["recovery_drift"]
            if drift is not None and there(drift):
                found: dict[str, Any] = drift
                return found
        raise AssertionError(self._planner.get("/deployments/d").text)


@contextmanager
def served(where: Path, planner: httpx.Client, plan: Plan) -> Iterator[Service]:
    """The small model on two ranks by a plan, which are the planner's nodes."""
    model(where)
    apply(where / "model", plan, where / "planned", False, quiet)
    told = {
        "hplb_planner": str(planner.base_url),
        "hplb_node": "e",
        "hplb_sample_every": 1,
        "hplb_state_dir": str(where / "state"),
    }
    with answering(where / "planned", where / "server.log", 2, told) as engine:
        while len(planner.get("/nodes").json()["nodes"]) < 2:
            time.sleep(0.1)
        yield Service(planner, engine, where / "planned")


def test_a_promise_is_judged_by_what_real_requests_recover(tmp_path: Path) -> None:
    """First of a profile that promises nearly all, then of one that promises the budgets' share of
    the tokens, for the same budgets."""
    with serving_in(tmp_path) as services:
        planner = services.start("--database-url", f"sqlite:///{tmp_path / 'hplb.db'}")
        bold, modest = (
            planner.post("/plan", json=asked(name, recovery)).raise_for_status()
            for name, recovery in (("bold", 1 - 0.02 * (1 - SHARES)), ("modest", SHARES))
        )
        plan = Plan.parse(bold.content, "bold")
        with served(tmp_path, planner, plan) as service:
            service.deploy(plan.id)
            # Its first layer has a window, and is the stock back end's.
            raised = service.until(lambda drift: drift["raised"] and drift["heads"] == 6)
            service.deploy(modest.json()["id"])
            kept = service.until(lambda drift: drift["heads"] == 6)
    assert raised["heads_drifted"] > 0
    assert {head["layer"] for head in raised["worst"]} == {1}
    assert all(head["observed"] < head["expected"] for head in raised["worst"])
    of = {(each["phase"], each["context_tokens"]): each for each in raised["requests"]}
    assert {("prefill", 256), ("prefill", 512), ("prefill", 1024), ("decode", 1024)} <= of.keys()
    assert any(each["raised"] for each in of.values())
    assert not kept["raised"]
    assert kept["observed_mean"] > kept["expected_mean"]
