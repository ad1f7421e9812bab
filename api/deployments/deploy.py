"""Deployments: which plan is live on which nodes, counted up by generation."""

from collections.abc import Sequence

from api.client.bodies import DeploymentRequest
from api.deployments.leases import Leases
from api.loop.decide import RefinePolicy, RefineState, WentLive, decide
from api.problems import bad_field, not_found
from api.store import deployment_store, node_store, plan_store
from api.store.session import Session
from api.store.tables import StoredDeployment, StoredGeneration, StoredNode
from solver.plans import Plan

PUT = "put by request"
"""The reason of a generation that the loop did not ask for."""


def find(session: Session, name: str, *, to_change: bool = True) -> StoredDeployment:
    """A deployment; 404 where there is none. One to change is locked until the transaction ends."""
    found = deployment_store.find(session, name, to_change=to_change)
    if found is None:
        raise not_found("deployment", name)
    return found


def put(session: Session, name: str, wanted: DeploymentRequest, leases: Leases, now: float) -> bool:
    """Make a deployment what is wanted; returns whether that changed anything.

    Raises Problem: 404 for an unknown plan, 422 where nodes or layers do not fit it.
    """
    plan = plan_store.find(session, wanted.plan_id)
    if plan is None:
        raise not_found("plan", wanted.plan_id)
    layers = _layers(wanted.layers, plan)
    deployment = deployment_store.find(session, name, to_change=True)
    content = {
        "plan_id": plan.id,
        "nodes": wanted.nodes,
        "layers": layers,
        "rounds": wanted.rounds,
        "every_s": wanted.every_s,
        "refine": wanted.refine,
    }
    if deployment is None:
        deployment = StoredDeployment(name=name, generation=0, refine_state=RefineState().to_json())
        session.add(deployment)
    elif _serves(session, deployment) and all(
        getattr(deployment, field) == value for field, value in content.items()
    ):
        return False
    for field, value in content.items():
        setattr(deployment, field, value)
    nodes = _nodes(session, wanted.nodes, leases)
    parts = _parts(nodes, plan)
    session.flush()
    for left in node_store.serving(session, name):
        left.deployment, left.part = None, []
    for node, part in zip(nodes, parts, strict=True):
        _take(session, node, name)
        node.deployment, node.part = name, part
    deployment.decision = None
    start_generation(session, deployment, PUT, now, by_refine=False)
    return True


def start_generation(
    session: Session, deployment: StoredDeployment, reason: str, now: float, *, by_refine: bool
) -> None:
    """Count up, write the history, and tell the refine loop's state; drift starts over."""
    deployment.generation += 1
    deployment.drift = None
    session.flush()
    session.add(
        StoredGeneration(
            deployment=deployment.name,
            generation=deployment.generation,
            plan_id=deployment.plan_id,
            reason=reason,
            at=now,
        )
    )
    moved = WentLive(deployment.generation, deployment.plan_id, by_refine=by_refine)
    state, _ = decide(RefineState.from_json(deployment.refine_state), moved, RefinePolicy(), now)
    deployment.refine_state = state.to_json()


def leave(session: Session, node: StoredNode, why: str) -> None:
    """Take a node out of its deployment, which says so until it is put again."""
    if node.deployment is not None:
        deployment = find(session, node.deployment)
        deployment.decision = f"incomplete: node {node.node_id} {why}; put the deployment again"
    node.deployment, node.part = None, []


def _take(session: Session, node: StoredNode, name: str) -> None:
    if node.deployment is not None and node.deployment != name:
        leave(session, node, f"now serves {name}")


def _serves(session: Session, deployment: StoredDeployment) -> bool:
    """Whether the deployment still has all its nodes."""
    serving = node_store.serving(session, deployment.name)
    return {node.node_id for node in serving} == set(deployment.nodes)


def _layers(wanted: Sequence[int] | None, plan: Plan) -> list[int]:
    count = len(plan.layers)
    if wanted is None:
        return list(range(count))
    beyond = [layer for layer in wanted if layer >= count]
    if beyond:
        raise bad_field("layers", f"layer {beyond[0]} is not one of the plan's 0 to {count - 1}")
    if len(set(wanted)) != len(wanted):
        raise bad_field("layers", "a layer is named twice")
    return sorted(wanted)


def _nodes(session: Session, names: Sequence[str], leases: Leases) -> list[StoredNode]:
    if len(set(names)) != len(names):
        raise bad_field("nodes", "a node is named twice")
    nodes = []
    for name in names:
        node = node_store.find_to_change(session, name)
        if node is None:
            raise bad_field("nodes", f"node {name!r} has not registered")
        left_s = leases.left_s(node)
        if left_s <= 0:
            raise bad_field("nodes", f"node {name!r} let its lease run out {-left_s:.0f} s ago")
        nodes.append(node)
    return nodes


def _parts(nodes: Sequence[StoredNode], plan: Plan) -> list[list[int]]:
    """The plan's device indices that each node's local devices play, in order."""
    offered = [(node.node_id, kind) for node in nodes for kind in node.devices]
    if len(offered) != len(plan.devices):
        raise bad_field(
            "nodes", f"they have {len(offered)} devices, the plan is for {len(plan.devices)}"
        )
    for index, ((node_id, kind), wanted) in enumerate(zip(offered, plan.devices, strict=True)):
        if kind != wanted:
            raise bad_field(
                "nodes", f"the plan's device {index} is a {wanted}, node {node_id!r} has a {kind}"
            )
    parts, start = [], 0
    for node in nodes:
        parts.append(list(range(start, start + len(node.devices))))
        start += len(node.devices)
    return parts
