"""Deleting by request: only what nothing uses any more; else 409, naming what does."""

from api.deployments import deploy
from api.deployments.leases import Leases
from api.problems import Problem, not_found
from api.store import deployment_store, node_store, plan_store, profile_store, retention
from api.store.session import Session

NAMED = 5
"""Users that a refusal names."""


def remove_plan(session: Session, plan_id: str) -> None:
    """Delete a plan that no deployment runs or ran in a generation that is kept."""
    if plan_store.find_summary(session, plan_id) is None:
        raise not_found("plan", plan_id)
    ran = deployment_store.that_ran(session, plan_id)
    users = [f"generation {each.generation} of deployment {each.deployment}" for each in ran]
    _refuse_if_used(f"plan {plan_id!r}", users)
    retention.remove_plans(session, [plan_id])


def remove_profile(session: Session, name: str) -> None:
    """Take a profile's name away; plans made from it keep its content."""
    if not profile_store.forget(session, name):
        raise not_found("profile", name)


def remove_deployment(session: Session, name: str, leases: Leases) -> None:
    """Delete a deployment that no live node serves, its history and what was measured of it."""
    deployment = deploy.find(session, name)
    serving = node_store.serving(session, name)
    live = sorted(node.node_id for node in serving if leases.left_s(node) > 0)
    _refuse_if_used(f"deployment {name!r}", [f"node {node}" for node in live])
    for node in serving:
        node.deployment, node.part = None, []
    session.flush()
    retention.remove_deployment(session, deployment)


def remove_node(session: Session, node_id: str, leases: Leases) -> None:
    """Forget a node whose lease has run out and that serves no deployment."""
    node = node_store.find_to_change(session, node_id)
    if node is None:
        raise not_found("node", node_id)
    users = [f"deployment {node.deployment}"] if node.deployment else []
    left_s = leases.left_s(node)
    if left_s > 0:
        users.append(f"its own process, whose lease runs for {left_s:.0f} s yet")
    _refuse_if_used(f"node {node_id!r}", users)
    session.delete(node)


def _refuse_if_used(what: str, users: list[str]) -> None:
    if users:
        more = f" and {len(users) - NAMED} more" if len(users) > NAMED else ""
        raise Problem(409, f"{what} is still used by {', '.join(users[:NAMED])}{more}")
