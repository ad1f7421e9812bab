"""`/profiles` and `/cost-models`."""

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from api.client.bodies import CostModels, ProfileList, ProfileSummary
from api.json_body import StrictBody
from api.problems import Problem, bad_field, not_found, refusals
from api.removal import remove_profile
from api.service import NamePath, ServiceDep
from api.store import profile_store, rate_store
from profiles.catalogue import catalogue_names
from profiles.model import ModelProfile

router = APIRouter(tags=["profiles"], route_class=StrictBody)


@router.get("/profiles", response_model=ProfileList)
def list_profiles(service: ServiceDep) -> dict[str, object]:
    """The catalogue's profiles and those stored here."""
    with service.database.read() as session:
        return {"profiles": profile_store.summaries(session)}


@router.get("/profiles/{name}", response_model=ModelProfile, responses=refusals(404, 422))
def get_profile(name: NamePath, service: ServiceDep) -> Response:
    """A profile."""
    with service.database.read() as session:
        profile = profile_store.find(session, name)
    if profile is None:
        raise not_found("profile", name)
    return Response(profile.model_dump_json(), media_type="application/json")


@router.put(
    "/profiles/{name}",
    response_model=ProfileSummary,
    responses=refusals(400, 409, 413, 422),
)
async def put_profile(name: NamePath, body: ModelProfile, service: ServiceDep) -> dict[str, object]:
    """Store a profile; plans made from an earlier one of that name keep theirs."""
    if body.name != name:
        raise bad_field("name", f"is {body.name!r}, but the path says {name!r}")
    if name in catalogue_names():
        raise Problem(409, f"profile {name!r} is the catalogue's and cannot be overwritten")
    await service.database.writing(
        lambda session: profile_store.keep(session, body, service.clock())
    )
    service.answerer.remembered.forget()
    return await run_in_threadpool(profile_store.summary, body)


@router.delete("/profiles/{name}", status_code=204, responses=refusals(404, 409, 422))
async def delete_profile(name: NamePath, service: ServiceDep) -> None:
    """Take a profile's name away; plans made from it keep its content."""
    if name in catalogue_names():
        raise Problem(409, f"profile {name!r} is the catalogue's and cannot be deleted")
    await service.database.writing(lambda session: remove_profile(session, name))
    service.answerer.remembered.forget()


@router.get("/cost-models", response_model=CostModels)
def list_cost_models(service: ServiceDep) -> dict[str, object]:
    """The rates that plans made now use."""
    with service.database.read() as session:
        found = rate_store.all_in_force(session)
    return {"rates": [{**r.model_dump(), "version": r.version} for r in found]}
