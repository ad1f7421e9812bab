"""`/nodes`: registration, leases, and the long poll for work."""

import asyncio
from asyncio import wrap_future
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api.auth import CallerDep
from api.client.bodies import (
    COLUMNS,
    MEASUREMENTS_HEADER,
    Assignment,
    Lease,
    LeaseRenewal,
    NodeList,
    NodeRegistration,
)
from api.deployments import deploy
from api.deployments.board import RECHECK_S
from api.deployments.leases import Renewal, renew_leases
from api.deployments.views import node_view
from api.json_body import StrictBody
from api.notify import wait_for
from api.problems import bad_field, refusals
from api.removal import remove_node
from api.routes.paging import MOST, Limit, Offset
from api.service import NamePath, Service, ServiceDep
from api.store import node_store, plan_store
from api.store.session import Session
from api.store.tables import StoredDeployment, StoredNode
from profiles.catalogue import device_profile
from profiles.errors import UnknownNameError
from profiles.model import NAME_PATTERN

router = APIRouter(tags=["nodes"], route_class=StrictBody)


@router.post("/nodes", response_model=Lease, responses=refusals(400, 413, 422))
async def register_node(
    body: NodeRegistration, service: ServiceDep, caller: CallerDep, answer: Response
) -> Lease:
    """Register a node, or replace its entry."""
    caller.check_node(body.node_id)
    answer.headers[MEASUREMENTS_HEADER] = COLUMNS
    for index, kind in enumerate(body.devices):
        try:
            device_profile(kind)
        except UnknownNameError as error:
            raise bad_field(f"devices.{index}", str(error)) from None

    def keep(session: Session) -> bool:
        node = node_store.find_to_change(session, body.node_id)
        came_back_with_others = node is not None and node.devices != body.devices
        if node is None:
            node = StoredNode(node_id=body.node_id, deployment=None, part=[])
            session.add(node)
        elif came_back_with_others:
            deploy.leave(session, node, "came back with other devices")
        node.boot_id, node.backend = body.boot_id, body.backend
        node.devices, node.versions = body.devices, body.versions
        node.active_deployment = node.active_generation = node.error = None
        service.leases.renewed(node)
        return came_back_with_others

    if await service.database.writing(keep):
        service.notifier.notify()
    return Lease(node_id=body.node_id, lease_s=service.leases.lease_s)


@router.put(
    "/nodes/{node_id}/lease",
    response_model=Lease,
    responses=refusals(400, 404, 409, 413, 422),
)
async def renew_lease(node_id: NamePath, body: LeaseRenewal, service: ServiceDep) -> Lease:
    """Renew a lease and say what runs."""
    await wrap_future(service.database.submit(renew_leases, Renewal(node_id, body, service.leases)))
    return Lease(node_id=node_id, lease_s=service.leases.lease_s)


@router.get("/nodes", response_model=NodeList, responses=refusals(422))
def list_nodes(service: ServiceDep, limit: Limit = MOST, offset: Offset = 0) -> NodeList:
    """Nodes that ever registered, by name; `live` while the lease runs."""
    with service.database.read() as session:
        nodes, total = node_store.page(session, limit, offset)
        views = [node_view(node, service.leases.left_s(node)) for node in nodes]
        return NodeList(nodes=views, total=total)


@router.delete("/nodes/{node_id}", status_code=204, responses=refusals(404, 409, 422))
async def delete_node(node_id: NamePath, service: ServiceDep) -> None:
    """Forget a node whose lease has run out and that serves no deployment."""
    await service.database.writing(lambda session: remove_node(session, node_id, service.leases))
    service.notifier.notify()


@router.get(
    "/nodes/{node_id}/assignment",
    response_model=Assignment,
    responses={204: {"description": "Nothing changed"}, **refusals(404, 422)},
)
async def get_assignment(
    node_id: NamePath,
    service: ServiceDep,
    deployment: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
    generation: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    wait_s: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)] = 20.0,
) -> Response:
    """The node's assignment as soon as it is another than this generation of this deployment."""
    known = (deployment, generation)
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    while True:
        change = service.notifier.next_change()
        wanted = await service.board.wanted(node_id)
        if wanted is not None and wanted != known:
            found = await run_in_threadpool(_assigned, service, node_id)
            if found is not None and (found.deployment, found.generation) != known:
                return Response(found.model_dump_json(), media_type="application/json")
        left_s = deadline - clock()
        if left_s <= 0 or service.notifier.closed:
            return Response(status_code=204)
        await wait_for(change, min(left_s, RECHECK_S))


def _assigned(service: Service, node_id: str) -> Assignment | None:
    with service.database.read() as session:
        node = session.get(StoredNode, node_id)
        if node is None or node.deployment is None:
            return None
        deployment = session.get_one(StoredDeployment, node.deployment)
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
