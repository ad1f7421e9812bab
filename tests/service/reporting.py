"""A node of a planner that runs as a process: what it is given, and the batches it sends."""

import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from profiles.catalogue import catalogue_rates
from profiles.cost.work import FEATURES
from solver.plans import Plan
from tests.api.world import plan_body, work_of

Json = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """A node with both of a plan's devices, the only one of its deployment."""

    name: str
    plan: Plan

    @classmethod
    def deployed(cls, client: httpx.Client, name: str = "a", **options: Any) -> "Node":
        answer = client.post("/plan", json=plan_body())
        answer.raise_for_status()
        plan = Plan.parse(answer.content, "answer")
        body = {"node_id": name, "boot_id": "boot", "devices": ["h200"] * 2, "backend": "none"}
        client.post("/nodes", json=body).raise_for_status()
        wanted = {"plan_id": plan.id, "nodes": [name], **options}
        client.put(f"/deployments/of-{name}", json=wanted).raise_for_status()
        return cls(name, plan)

    def batch(self, slow: float = 4.0, generation: int = 1) -> Json:
        """A round in which everything takes `slow` times what the catalogue says."""
        rates = catalogue_rates(["h200"], "prefill")["h200"]
        samples = []
        for layer in range(len(self.plan.layers)):
            for device in (0, 1):
                work = work_of(self.plan, layer, device)
                counts = dict(zip(FEATURES, work.tolist(), strict=True))
                seconds = slow * float(rates.seconds(work))
                samples.append(
                    {"layer": layer, "device": device, "seconds": seconds, "work": counts}
                )
        return {
            "batch_id": str(uuid.uuid4()),
            "deployment": f"of-{self.name}",
            "plan_id": self.plan.id,
            "generation": generation,
            "node_id": self.name,
            "timing": "alone",
            "samples": samples,
        }

    @property
    def renewal(self) -> Json:
        return {"boot_id": "boot", "active": None, "error": None}
