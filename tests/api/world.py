"""What the tests of the service share: a small profile, and a client's usual steps."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import httpx
import numpy as np

from api.service import Service
from api.solves.job import SolveJob
from profiles.catalogue import catalogue_rates
from profiles.cost.work import FEATURES
from solver.planning.predict import shard_work
from solver.plans import Plan
from solver.request import WorkloadOptions

Json = dict[str, Any]
CONTEXT = 4096


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def profile(name: str = "small", layers: int = 3, heads: int = 8) -> Json:
    """Uneven made-up budgets; `heads` query heads in pairs."""
    tokens = [
        [64 * (1 + (7 * h + 3 * layer) % 41) for h in range(heads)] for layer in range(layers)
    ]
    return {
        "schema_version": 1,
        "name": name,
        "architecture": {
            "layers": layers,
            "query_heads": heads,
            "kv_heads": heads // 2,
            "head_dim": 64,
            "hidden_size": 64 * heads,
            "dtype": "bfloat16",
        },
        "heads": {"form": "budgets", "tokens": tokens},
        "source": "made up for the tests",
        "synthetic": True,
    }


def plan_body(**changes: Any) -> Json:
    body = {
        "profile": profile(),
        "gpus": 2,
        "context_tokens": CONTEXT,
        "method": "greedy",
        "time_limit_s": 2.0,
    }
    return {k: v for k, v in {**body, **changes}.items() if v is not ...}


def hard_body(**changes: Any) -> Json:
    """A search with something to tell at once and no end soon."""
    hard = {
        "profile": "llama-3.1-8b-synthetic",
        "gpus": 5,
        "context_tokens": 131072,
        "method": "cp_sat",
        "time_limit_s": 300,
        "tolerance": 0,
    }
    return {**hard, **changes}


def work_of(plan: Plan, layer: int, device: int) -> np.ndarray:
    """What an executor counts for a device's shares of a layer, [FEATURES]."""
    return np.asarray(shard_work(plan, layer)[device])


@dataclass(frozen=True)
class World:
    """A client of a service, and the service itself."""

    client: httpx.Client
    service: Service
    clock: Clock

    def plan(self, **changes: Any) -> Plan:
        answer = self.client.post("/plan", json=plan_body(**changes))
        assert answer.status_code == 200, answer.text
        return Plan.parse(answer.content, "answer")

    def again(self, plan_id: str, traffic: Sequence[WorkloadOptions] = ()) -> Plan:
        """The plan of a stored plan's request asked once more, as the refine loop does."""
        found, ended = self.service.answerer.again(plan_id, 60.0, traffic=traffic), Event()
        if isinstance(found, SolveJob):
            found.when_ended(ended.set)
            assert ended.wait(20)
        return Plan.parse(self.service.answerer.plan_of(found).body, "planned again")

    def register(self, node: str, devices: int | list[str] = 1, boot: str = "boot") -> None:
        kinds = ["h200"] * devices if isinstance(devices, int) else devices
        body = {"node_id": node, "boot_id": boot, "devices": kinds, "backend": "none"}
        answer = self.client.post("/nodes", json=body)
        assert answer.status_code == 200, answer.text

    def put(self, plan_id: str, nodes: list[str], name: str = "d", **more: Any) -> httpx.Response:
        body = {"plan_id": plan_id, "nodes": nodes, **more}
        return self.client.put(f"/deployments/{name}", json=body)

    def deploy(self, plan: Plan, nodes: list[str], name: str = "d", **more: Any) -> Json:
        answer = self.put(plan.id, nodes, name, **more)
        assert answer.status_code == 200, answer.text
        view: Json = answer.json()
        return view

    def view(self, name: str = "d") -> Json:
        view: Json = self.client.get(f"/deployments/{name}").json()
        return view

    def assigned(self, node: str, **query: Any) -> Json | None:
        answer = self.client.get(f"/nodes/{node}/assignment", params={"wait_s": 0, **query})
        return None if answer.status_code == 204 else answer.json()

    def batch(
        self, plan: Plan, view: Json, node: str, devices: list[int], slow: float = 4.0
    ) -> Json:
        """One round: every device takes `slow` times what the catalogue says."""
        rates = catalogue_rates(plan.devices, plan.workload.phase)
        samples = []
        for layer in view["layers"]:
            for device in devices:
                work = work_of(plan, layer, device)
                seconds = slow * float(rates[plan.devices[device]].seconds(work))
                counts = dict(zip(FEATURES, work.tolist(), strict=True))
                samples.append(
                    {"layer": layer, "device": device, "seconds": seconds, "work": counts}
                )
        return {
            "batch_id": str(uuid.uuid4()),
            "deployment": view["name"],
            "plan_id": view["plan_id"],
            "generation": view["generation"],
            "node_id": node,
            "timing": "alone",
            "samples": samples,
        }

    def post(self, batch: Json) -> httpx.Response:
        return self.client.post("/measurements", json=batch)

    def settle(self) -> None:
        """Wait for the refine loop to have dealt with everything."""
        assert self.service.refiner.settle(30)


def fields(answer: httpx.Response, status: int = 422) -> dict[str, str]:
    """The bad fields of a problem, checked to be one in RFC 9457's form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    found: dict[str, str] = {}
    for fault in problem.get("errors", []):
        found[fault["field"]] = found.get(fault["field"], "") + fault["message"] + "; "
    return found
