"""`/nodes`: registration, leases, and the long poll for work."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api.client.bodies import Assignment, Lease, LeaseRenewal, NodeList, NodeRegistration
from api.deployments import deploy
from api.deployments.views import node_view
from api.json_body import StrictBody
from api.notify import wait_for
from api.problems import Problem, bad_field, not_found, refusals
from api.service import NamePath, Service, ServiceDep
from api.store import node_store, plan_store
from api.store.tables import StoredDeployment, StoredNode
from profiles.catalogue import device_profile
from profiles.errors import UnknownNameError
from profiles.model import NAME_PATTERN

router = APIRouter(tags=["nodes"], route_class=StrictBody)

RECHECK_S = 2.0
"""Another process on the same database may change an assignment without this one's notice."""


@router.post("/nodes", response_model=Lease, responses=refusals(400, 413, 422))
def register(body: NodeRegistration, service: ServiceDep) -> Lease:
    """Register a node, or replace its entry."""
    for index, kind in enumerate(body.devices):
        try:
            device_profile(kind)
        except UnknownNameError as error:
            raise bad_field(f"devices.{index}", str(error)) from None
    with service.database.write() as session:
        node = node_store.find(session, body.node_id)
        if node is None:
            node = StoredNode(node_id=body.node_id, deployment=None, part=[])
            session.add(node)
        elif node.devices != body.devices:
            deploy.leave(session, node, "came back with other devices")
        node.boot_id, node.backend = body.boot_id, body.backend
        node.devices, node.versions = body.devices, body.versions
        node.active_deployment = node.active_generation = node.error = None
        node.lease_expires_at = service.clock() + service.settings.lease_s
    service.notifier.notify()
    return Lease(node_id=body.node_id, lease_s=service.settings.lease_s)


@router.put(
    "/nodes/{node_id}/lease",
    response_model=Lease,
    responses=refusals(400, 404, 409, 413, 422),
)
def renew(node_id: NamePath, body: LeaseRenewal, service: ServiceDep) -> Lease:
    """Renew a lease and say what runs."""
    with service.database.write() as session:
        node = node_store.find(session, node_id)
        if node is None:
            raise not_found("node", node_id)
        if node.boot_id != body.boot_id:
            raise Problem(409, f"node {node_id!r} was registered by another process since")
        node.active_deployment = body.active.deployment if body.active else None
        node.active_generation = body.active.generation if body.active else None
        node.error = body.error
        node.lease_expires_at = service.clock() + service.settings.lease_s
    return Lease(node_id=node_id, lease_s=service.settings.lease_s)


@router.get("/nodes", response_model=NodeList)
def list_nodes(service: ServiceDep) -> NodeList:
    """All nodes that ever registered; `live` while the lease runs."""
    with service.database.read() as session:
        nodes = node_store.every(session)
        return NodeList(nodes=[node_view(node, service.clock()) for node in nodes])


@router.get(
    "/nodes/{node_id}/assignment",
    response_model=Assignment,
    responses={204: {"description": "Nothing changed"}, **refusals(404, 422)},
)
async def assignment(
    node_id: NamePath,
    service: ServiceDep,
    deployment: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
    generation: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    wait_s: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)] = 20.0,
) -> Response:
    """The node's assignment as soon as it is another than this generation of this deployment."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    while True:
        change = service.notifier.next_change()
        found = await run_in_threadpool(_assigned, service, node_id, (deployment, generation))
        if found is not None:
            return Response(found.model_dump_json(), media_type="application/json")
        left_s = deadline - clock()
        if left_s <= 0 or service.notifier.closed:
            return Response(status_code=204)
        await wait_for(change, min(left_s, RECHECK_S))


def _assigned(
    service: Service, node_id: str, known: tuple[str | None, int | None]
) -> Assignment | None:
    with service.database.read() as session:
        node = session.get(StoredNode, node_id)
        if node is None:
            raise not_found("node", node_id)
        if node.deployment is None:
            return None
        deployment = session.get_one(StoredDeployment, node.deployment)
        if known == (deployment.name, deployment.generation):
            return None
        # Not checked against the plan's id here: the node that it is for does that.
        return Assignment.model_construct(
            deployment=deployment.name,
            generation=deployment.generation,
            plan_id=deployment.plan_id,
            plan=plan_store.load(session, deployment.plan_id),
            devices=node.part,
            layers=deployment.layers,
            rounds=deployment.rounds,
            every_s=deployment.every_s,
        )
