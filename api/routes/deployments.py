"""`/deployments`."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from api.client.bodies import DeploymentList, DeploymentRequest, DeploymentView
from api.deployments import deploy
from api.deployments.views import deployment_view
from api.json_body import StrictBody
from api.problems import not_found, refusals
from api.removal import remove_deployment
from api.routes.paging import MOST, Limit, Offset
from api.service import NamePath, ServiceDep
from api.store import deployment_store
from api.store.tables import StoredGeneration

router = APIRouter(tags=["deployments"], route_class=StrictBody)


@router.put(
    "/deployments/{name}",
    response_model=DeploymentView,
    responses=refusals(400, 404, 409, 413, 422),
)
async def put_deployment(
    name: NamePath, body: DeploymentRequest, service: ServiceDep
) -> DeploymentView:
    """Make a plan live on nodes. An equal PUT changes nothing."""
    if await service.database.writing(
        lambda session: deploy.put(session, name, body, service.leases, service.clock())
    ):
        service.notifier.notify()
    return await run_in_threadpool(get_deployment, name, service)


@router.get("/deployments", response_model=DeploymentList, responses=refusals(422))
def list_deployments(
    service: ServiceDep, limit: Limit = MOST, offset: Offset = 0
) -> DeploymentList:
    """Deployments, by name."""
    with service.database.read() as session:
        found, total = deployment_store.page(session, limit, offset)
        views = [deployment_view(session, each, service.leases) for each in found]
        return DeploymentList(deployments=views, total=total)


@router.get("/deployments/{name}", response_model=DeploymentView, responses=refusals(404, 422))
def get_deployment(
    name: NamePath,
    service: ServiceDep,
    generation: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="A past one, instead of the live.")
    ] = None,
) -> DeploymentView:
    """A deployment: what is live, what was predicted of it and what was measured."""
    with service.database.read() as session:
        deployment = deploy.find(session, name, to_change=False)
        if generation in (None, deployment.generation):
            return deployment_view(session, deployment, service.leases)
        past = session.get(StoredGeneration, (name, generation))
        if past is None:
            raise not_found("generation", f"{generation} of {name}")
        return deployment_view(session, deployment, service.leases, past)


@router.delete("/deployments/{name}", status_code=204, responses=refusals(404, 409, 422))
async def delete_deployment(name: NamePath, service: ServiceDep) -> None:
    """Delete a deployment that no live node serves, its history and what was measured of it."""
    await service.database.writing(lambda session: remove_deployment(session, name, service.leases))
    service.notifier.notify()
