"""What an engine measures of real requests reaches a planner, which holds recovery against the
promise and plans again by the seconds."""

import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from executor.weights.apply import apply
from solver.plans import Plan
from tests.api.served import serving_in
from tests.engines.made import LONGEST, SHAPE, VOCABULARY, model, quiet
from tests.engines.test_vllm import answering

PATIENCE_S = 500.0
PROMPT, MADE = 700, 64
CONTEXTS = (256, 1024)
SHARES = np.array([1 / 8, 1 / 4, 1 / 2, 3 / 4])
BY_GROUPS = [1024, 16, 512, 512, 512, 512]
"""Tokens of heads, whose groups decode in equal halves as [1] and [2, 3] and prefill as 1 to 2."""


def asked(name: str, heads: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A plan for the small model on two ranks."""
    return {
        "profile": {
            "schema_version": 1,
            "name": name,
            "architecture": SHAPE.model_dump(mode="json"),
            "heads": heads,
            "source": "made up for the tests",
            "synthetic": True,
        },
        "gpus": 2,
        "device_type": "cpu",
        "block_tokens": 64,
        "piece_tokens": 16,
        "placement": {"slots": 2, "divisible": True},
        "time_limit_s": 5,
        **more,
    }


def promising(name: str, recovery: np.ndarray) -> dict[str, Any]:
    """Each head with 128 tokens, which recover so much of SHARES of a context as is promised."""
    curve = recovery.tolist()
    heads = {
        "form": "recovery_curves",
        "context_tokens": list(CONTEXTS),
        "budget_tokens": [(SHARES * context).astype(int).tolist() for context in CONTEXTS],
        "recovery": [[[curve, curve]] * SHAPE.query_heads] * SHAPE.layers,
    }
    return asked(name, heads, context_tokens=1024, budget={"policy": "uniform", "tokens": 128})


def for_decodes() -> dict[str, Any]:
    """Made for decodes alone: a group reads as much as its largest head, whatever the others do."""
    heads = {"form": "budgets", "tokens": [BY_GROUPS] * SHAPE.layers}
    workloads = [{"context_tokens": 1024, "phase": "decode", "batch_size": 4}]
    return asked("by-groups", heads, workloads=workloads)


class Service:
    """A planner, and an engine that is asked for something whenever the planner is waited for."""

    def __init__(self, planner: httpx.Client, engine: httpx.Client, folder: Path) -> None:
        self.planner = planner
        self._engine, self._folder = engine, folder
        self._draw = random.Random(0)

    def plan(self, wanted: dict[str, Any]) -> Plan:
        return Plan.parse(self.planner.post("/plan", json=wanted).raise_for_status().content, "")

    def deploy(self, plan: Plan, *, refine: bool = False) -> None:
        wanted = {"plan_id": plan.id, "nodes": ["e-0", "e-1"], "refine": refine}
        self.planner.put("/deployments/d", json=wanted).raise_for_status()

    def until(
        self, there: Callable[[dict[str, Any]], bool], prompt: int = PROMPT, made: int = MADE
    ) -> dict[str, Any]:
        """The deployment, once it is that."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self.ask([self._draw.randrange(1, VOCABULARY) for _ in range(prompt)], made)
            found: dict[str, Any] = self.planner.get("/deployments/d").json()
            if there(found):
                return found
        raise AssertionError(self.planner.get("/deployments/d").text)

    def ask(self, prompt: list[int], made: int) -> str:
        body = {"model": str(self._folder), "prompt": prompt, "max_tokens": made}
        asked = body | {"ignore_eos": True, "temperature": 0}
        answer = self._engine.post("/v1/completions", json=asked).raise_for_status()
        text: str = answer.json()["choices"][0]["text"]
        return text

    def serves(self) -> set[str]:
        """Ids of the plans that the ranks serve."""
        return set(re.findall(r'hplb_plan_info{.*?plan="(\w+)"', self._engine.get("/metrics").text))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The small model on two ranks, which are the planner's nodes."""
    where = tmp_path_factory.mktemp("measured")
    model(where)
    with serving_in(where) as services:
        planner = services.start(
            "--database-url", f"sqlite:///{where / 'hplb.db'}", HPLB_REFINE_COOLDOWN_S="1"
        )
        first = planner.post("/plan", json=for_decodes()).raise_for_status()
        apply(where / "model", Plan.parse(first.content, ""), where / "planned", False, quiet)
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


def test_a_plan_made_for_other_steps_is_replaced_by_what_was_measured(service: Service) -> None:
    """Made for decodes, it is asked for long prompts. Nobody tells the service so."""
    first = service.plan(for_decodes())
    question = list(range(1, 300))
    before = service.ask(question, 16)
    service.deploy(first, refine=True)
    moved = service.until(lambda found: len(found["history"]) > 1, prompt=LONGEST // 2 - 16, made=1)
    second = moved["history"][1]
    assert second["reason"].startswith("moved: predicted gain ")
    assert second["plan_id"] != first.id
    live = service.until(lambda _: service.serves() == {second["plan_id"]}, made=1)
    assert live["history"][1] == second
    # The budgets are the same, wherever the heads are.
    assert service.ask(question, 16) == before


def test_a_promise_is_judged_by_what_real_requests_recover(service: Service) -> None:
    """First of a profile that promises nearly all, then of one that promises the budgets' share of
    the tokens, for the same budgets."""
    bold, modest = (
        service.plan(promising(name, recovery))
        for name, recovery in (("bold", 1 - 0.02 * (1 - SHARES)), ("modest", SHARES))
    )
    service.deploy(bold)
    wanted = {("prefill", 256), ("prefill", 512), ("prefill", 1024), ("decode", 1024)}

    def is_raised(found: dict[str, Any]) -> bool:
        """Of all kinds, whatever part of a request the first report was of."""
        return judged(found) and found["recovery_drift"]["raised"] and wanted <= kinds(found).keys()

    raised = service.until(is_raised)
    service.deploy(modest)
    kept = service.until(judged)["recovery_drift"]
    raised, of = raised["recovery_drift"], kinds(raised)
    assert raised["heads_drifted"] > 0
    assert {head["layer"] for head in raised["worst"]} == {1}
    assert all(head["observed"] < head["expected"] for head in raised["worst"])
    assert any(each["raised"] for each in of.values())
    assert not kept["raised"]
    assert kept["observed_mean"] > kept["expected_mean"]


def judged(found: dict[str, Any]) -> bool:
    """Whether the live generation's verdict is of all heads; the first layer has a window, and is
    the stock back end's."""
    drift = found["recovery_drift"]
    return drift is not None and drift["heads"] == 6


def kinds(found: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """What was judged of each kind of request."""
    requests = found["recovery_drift"]["requests"]
    return {(each["phase"], each["context_tokens"]): each for each in requests}
