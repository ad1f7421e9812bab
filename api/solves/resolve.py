"""Looks up everything a plan request refers to: profiles, devices, rates, the current plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.problems import bad_field
from api.store import plan_store, profile_store, rate_store
from api.store.session import Session
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.errors import UnknownNameError
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest, WorkloadOptions

OWN_WEIGHT = 0.01
"""Of a request's own workload, beside those of its traffic, the largest of which weighs 1."""


@dataclass(frozen=True, eq=False)
class ResolvedRequest:
    """A request whose profiles are all inline, the same with its current plan inline too, and the
    rates of each of its steps by device type."""

    request: PlanRequest
    whole: PlanRequest
    rates: list[Mapping[str, Rates]]
    digest: str


def resolve(session: Session, request: PlanRequest) -> ResolvedRequest:
    """Names are looked up in the store and the catalogue, never as files.

    Raises Problem: 422 with the field for what is not known, or does not fit together.
    """
    _check_types(request)
    whole = request.resolved(
        lambda name: _profile(session, name, request), lambda plan_id: _plan(session, plan_id)
    )
    _check_architectures(whole)
    types = list(dict.fromkeys(request.device_types))
    phases = dict.fromkeys(step.phase for step in request.steps)
    in_force = rate_store.rates_of(session, types, phases)
    by_rates = [in_force[step.phase] for step in request.steps]
    digest = whole.digest(
        [profile.digest for profile in whole.profiles],
        [own.version for each in by_rates for own in each.values()],
    )
    inline = whole.model_copy(update={"placement": request.placement})
    return ResolvedRequest(inline, whole, by_rates, digest)


def with_profile(request: PlanRequest, digest: str, instead: ModelProfile) -> PlanRequest:
    """A request whose profiles are all inline, with another one wherever that of `digest` was."""

    def replaced(profile: str | ModelProfile | None) -> str | ModelProfile | None:
        same = isinstance(profile, ModelProfile) and profile.digest == digest
        return instead if same else profile

    steps = [
        step.model_copy(update={"profile": replaced(step.profile)})
        for step in request.workloads or []
    ]
    update: dict[str, Any] = {"profile": replaced(request.profile), "workloads": steps or None}
    return request.model_copy(update=update)


def with_traffic(request: PlanRequest, traffic: Sequence[WorkloadOptions]) -> PlanRequest:
    """A request for the workloads that an engine was seen to serve.

    The first stays the request's own, for budgets are made for it, and hardly counts. One whose
    idle time budgets fill is for one workload, and stays what it is.
    """
    if request.budget.fill:
        return request
    own = request.steps[0].model_copy(update={"weight": OWN_WEIGHT})
    one: dict[str, Any] = {"context_tokens": None, "phase": "prefill", "batch_size": 1}
    return request.model_copy(update={**one, "workloads": [own, *traffic]})


def _check_types(request: PlanRequest) -> None:
    field = "device_type" if request.devices is None else "devices"
    for name in dict.fromkeys(request.device_types):
        try:
            device_profile(name)
        except UnknownNameError as error:
            raise bad_field(field, str(error)) from None


def _check_architectures(whole: PlanRequest) -> None:
    main = whole.profile
    assert isinstance(main, ModelProfile)
    for index, own in enumerate(whole.profiles):
        if own.architecture.attention != main.architecture.attention:
            raise bad_field(
                f"workloads.{index}.profile",
                f"{own.name!r} is of another architecture than the request's {main.name!r}",
            )


def _profile(session: Session, name: str, request: PlanRequest) -> ModelProfile:
    profile = profile_store.find(session, name)
    if profile is None:
        steps = [step.profile for step in request.workloads or []]
        main = request.profile == name
        field = "profile" if main else f"workloads.{steps.index(name)}.profile"
        known = (
            ", ".join(str(entry["name"]) for entry in profile_store.summaries(session)) or "none"
        )
        raise bad_field(field, f"unknown profile {name!r}; known are {known}")
    return profile


def _plan(session: Session, plan_id: str) -> Plan:
    found = plan_store.find(session, plan_id)
    if found is None:
        raise bad_field("placement.current_plan", f"no plan {plan_id!r} is stored here")
    return found
