"""Executors and a gloo group placed on three machines by Ray, one of which dies.

Ray starts processes and tells which are gone; what is planned for those left is the planner's.
Machines are Ray's own stand-ins: raylets of `ray.cluster_utils`, a lease and a rank each.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from tests.api.served import serving_in
from tests.engines.made import ROOT

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install ray")

MACHINES = ("first", "second", "third")
LEASE_S = 3
REQUEST = {
    "profile": "smollm2-135m",
    "device_type": "cpu",
    "context_tokens": 1024,
    "budget": {"policy": "uniform", "tokens": 256},
    "method": "greedy",
    "time_limit_s": 5.0,
}
"""Of `POST /plan`, all but how many devices there are."""


class Machine:
    """An actor: an executor of one device, and a rank of a gloo group."""

    def node(self) -> str:
        """Where Ray has put it."""
        found: str = ray.get_runtime_context().get_node_id()
        return found

    def execute(self, planner: str, name: str, folder: str) -> None:
        """Begin to work for a planner, as `hplb executor` does."""
        from api.client.bodies import NodeRegistration
        from api.client.planner_client import PlannerClient
        from executor.node.bench import Bench
        from executor.node.daemon import Daemon
        from executor.reports.spool import Spool
        from executor.reports.state import NodeState

        node = NodeRegistration(
            node_id=name, boot_id=str(uuid4()), devices=["cpu"], backend="torch", versions={}
        )
        state = NodeState(Path(folder))
        spool = Spool(Path(folder) / "spool")
        daemon = Daemon(node, PlannerClient(planner), Bench(["cpu"], "torch"), state, spool)
        Thread(target=daemon.run, daemon=True).start()

    def summed(self, store: str, rank: int, ranks: int) -> float:
        """All ranks' numbers plus one, added up in a group of their own."""
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=ranks)
        number = torch.tensor(rank + 1.0)
        dist.all_reduce(number)
        dist.destroy_process_group()
        return float(number)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three machines of one core; the first is Ray's head."""
    from ray.cluster_utils import Cluster

    # Workers are to import what this process does.
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    one = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    try:
        for _ in MACHINES[1:]:
            made.add_node(**one)
        ray.init(address=made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.timeout(300)
def test_a_machine_is_lost_and_the_plan_is_for_those_left(cluster: Any, tmp_path: Path) -> None:
    group = ray.util.placement_group([{"CPU": 1}] * len(MACHINES), strategy="STRICT_SPREAD")
    ray.get(group.ready())
    remote = ray.remote(num_cpus=1)(Machine)
    actors = {
        name: remote.options(placement_group=group, placement_group_bundle_index=index).remote()
        for index, name in enumerate(MACHINES)
    }
    places = {name: ray.get(actor.node.remote()) for name, actor in actors.items()}
    assert len(set(places.values())) == len(MACHINES)
    assert summed(list(actors.values()), tmp_path / "three") == [6.0, 6.0, 6.0]
    with serving_in(tmp_path) as served:
        planner = served.start(HPLB_LEASE_S=str(LEASE_S))
        for name, actor in actors.items():
            folder = str(tmp_path / name)
            ray.get(actor.execute.remote(str(planner.base_url), name, folder))
        until(lambda: set(live(planner)) == set(MACHINES))
        view = measured(planner, list(MACHINES))
        assert all(view["measured"]["device_loads_s"][0][index] > 0 for index in range(3))
        assert view["decision"] is None

        # Not the head's, which all others hang on.
        lost = next(name for name in MACHINES if places[name] != head_of(cluster))
        (raylet,) = (node for node in cluster.worker_nodes if node.node_id == places[lost])
        cluster.remove_node(raylet, allow_graceful=False)
        until(lambda: gone(actors[lost]))
        del actors[lost]
        left = list(actors)
        until(lambda: set(live(planner)) == set(left))
        said = planner.get("/deployments/d").json()["decision"]
        assert f"node {lost} let its lease run out" in said
        assert f"plan for the 2 cpu of {', '.join(sorted(left))} and put" in said
        refused = planner.put("/deployments/d", json=wanted(view["plan_id"], list(MACHINES), 2))
        assert refused.status_code == 422

        view = measured(planner, left)
        assert len(view["measured"]["device_loads_s"][0]) == 2
        assert view["generation"] == 2
        assert view["decision"] is None
    assert summed(list(actors.values()), tmp_path / "two") == [3.0, 3.0]


def gone(actor: Any) -> bool:
    """Whether Ray cannot reach an actor; its process ends soon after its machine's raylet."""
    try:
        ray.get(actor.node.remote())
    except ray.exceptions.RayActorError:
        return True
    return False


def head_of(cluster: Any) -> str:
    found: str = cluster.head_node.node_id
    return found


def summed(actors: list[Any], store: Path) -> list[float]:
    """What the ranks of a new group found, each on its machine."""
    count = len(actors)
    asked = [actor.summed.remote(str(store), rank, count) for rank, actor in enumerate(actors)]
    found: list[float] = ray.get(asked)
    return found


def measured(planner: Any, nodes: list[str]) -> dict[str, Any]:
    """The deployment's view once a plan for these nodes is measured on them."""
    answer = planner.post("/plan", json={**REQUEST, "gpus": len(nodes)})
    assert answer.status_code == 200, answer.text
    put = planner.put("/deployments/d", json=wanted(answer.json()["id"], nodes, 1))
    assert put.status_code == 200, put.text
    until(lambda: planner.get("/deployments/d").json()["measured"] is not None)
    view: dict[str, Any] = planner.get("/deployments/d").json()
    return view


def wanted(plan_id: str, nodes: list[str], rounds: int) -> dict[str, Any]:
    """One layer of a plan, measured so often."""
    return {
        "plan_id": plan_id,
        "nodes": nodes,
        "layers": [0],
        "rounds": rounds,
        "refine": False,
    }


def live(planner: Any) -> list[str]:
    """Nodes whose lease runs."""
    nodes = planner.get("/nodes").json()["nodes"]
    return [node["node_id"] for node in nodes if node["live"]]


def until(state: Any) -> None:
    """Wait for a state; the test's own limit ends a wait in vain."""
    while not state():
        time.sleep(0.1)
