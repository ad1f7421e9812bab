"""What the service can be told: every field is also the environment variable HPLB_<FIELD>."""

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.loop.decide import RefinePolicy
from api.loop.drift import DriftPolicy
from api.store.retention import Keep, RetentionPolicy

MIB = 2**20
Most = Annotated[int, Field(ge=1)] | None
Age = Annotated[float, Field(gt=0)] | None
"""Seconds. None, or an empty variable, is without limit."""

KEPT = tuple(
    f"keep_{kind}{unit}"
    for kind in ("plans", "batches", "generations", "rates", "profiles")
    for unit in ("", "_s")
)


class Settings(BaseSettings):
    """The defaults run a service for one person on one machine."""

    model_config = SettingsConfigDict(
        env_prefix="HPLB_", frozen=True, use_attribute_docstrings=True
    )

    database_url: str = "sqlite:///hplb.db"
    """Any SQLAlchemy URL; PostgreSQL's, `postgresql+psycopg://...`, needs `hplb[postgres]`."""
    api_key: SecretStr | None = None
    """A key that may do everything, sent as `Authorization: Bearer KEY`. `hplb keys` makes others;
    without any, anybody on this machine is answered."""
    allowed_hosts: str = ""
    """Names that are answered as `Host`, by commas, `*.example.org` and `*` too. Unset: any where
    there is a key, else loopback's."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 16 * MIB
    """The largest body that is taken, a plan request or a profile; a larger one is 413."""
    solver_workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Solves at a time."""
    solver_queue: Annotated[int, Field(ge=0, le=1000)] = 16
    """Solves that may wait beside; more are turned away with 503."""
    solver_memory_bytes: Annotated[int, Field(ge=512 * MIB)] = 2048 * MIB
    """What one solve may allocate in its process, and CBC as much again."""
    client_solves: Annotated[int, Field(ge=1, le=1000)] = 8
    """Solves of one client, running and waiting; more are refused with 429."""
    max_time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 600.0
    """The longest `time_limit_s` that may be asked for."""
    max_solve_size: Annotated[int, Field(ge=1)] = 2**23
    """The most combinations of head, device and workload that one request may have."""
    lease_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """How long a node counts as live after it was heard of, in seconds."""
    keep_plans: Most = 10_000
    """The newest plans; those that a deployment runs or ran stay."""
    keep_plans_s: Age = None
    """Their age in seconds."""
    keep_batches: Most = 1000
    """Each node's newest batches: by their ids sending one twice is harmless."""
    keep_batches_s: Age = None
    """Their age in seconds."""
    keep_generations: Most = 100
    """Each deployment's newest generations, with what was measured; the live one stays."""
    keep_generations_s: Age = None
    """Their age in seconds."""
    keep_rates: Most = 1000
    """The newest rates of each device type and phase; those in force stay."""
    keep_rates_s: Age = None
    """Their age in seconds."""
    keep_profiles: Most = None
    """The newest names that clients stored; plans keep what they were made from."""
    keep_profiles_s: Age = None
    """Their age in seconds."""
    sample_window: Annotated[int, Field(ge=1, le=100_000)] = 4000
    """Samples that a refit of rates looks back."""
    refine_time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """The longest that planning again for a deployment may take."""
    refine_min_rounds: Annotated[int, Field(ge=1)] = RefinePolicy.min_rounds
    """Complete rounds before a deployment is judged."""
    refine_min_gain: Annotated[float, Field(ge=0, lt=1)] = RefinePolicy.min_gain
    """The gain of a new plan, as a share of the makespan, from which it goes live."""
    refine_cooldown_s: Annotated[float, Field(ge=0)] = RefinePolicy.cooldown_s
    """Seconds between two looks at a deployment."""
    refine_rollback_margin: Annotated[float, Field(ge=0)] = RefinePolicy.rollback_margin
    """How much slower than before a new generation may be, as a share; else rolled back."""
    drift_window: Annotated[int, Field(ge=1, le=1000)] = DriftPolicy.window
    """Newest rounds of each node by which recovery is judged."""
    drift_min_rounds: Annotated[int, Field(ge=1, le=1000)] = DriftPolicy.min_rounds
    """Rounds a head must have been seen in."""
    drift_floor: Annotated[float, Field(ge=0, le=1)] = DriftPolicy.floor
    """How far below the promise a head's recovery must be to have drifted."""
    drift_z: Annotated[float, Field(ge=0)] = DriftPolicy.z
    """And how many standard errors below it."""
    drift_share: Annotated[float, Field(ge=0, le=1)] = DriftPolicy.share
    """Share of the heads that must have drifted for drift to be raised."""
    drift_min_gain: Annotated[float, Field(ge=0, lt=1)] = RefinePolicy.min_recovery_gain
    """What a plan made for drift must add to the least recovery of a head."""
    drift_max_slowdown: Annotated[float, Field(ge=0)] = RefinePolicy.max_slowdown
    """How much longer such a plan may take, as a share."""

    @field_validator("api_key", *KEPT, mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        # Compose files pass on an unset variable as an empty one.
        return None if isinstance(value, str) and not value.strip() else value

    @model_validator(mode="after")
    def _drift_can_be_judged(self) -> Self:
        if self.drift_min_rounds > self.drift_window:
            raise ValueError(
                f"drift_min_rounds: {self.drift_min_rounds} rounds never fit into drift_window "
                f"({self.drift_window})"
            )
        return self

    @property
    def retention(self) -> RetentionPolicy:
        """What is kept of what adds up."""
        return RetentionPolicy(
            plans=Keep(self.keep_plans, self.keep_plans_s),
            batches=Keep(self.keep_batches, self.keep_batches_s),
            generations=Keep(self.keep_generations, self.keep_generations_s),
            rates=Keep(self.keep_rates, self.keep_rates_s),
            profiles=Keep(self.keep_profiles, self.keep_profiles_s),
        )

    @property
    def policy(self) -> RefinePolicy:
        """The refine loop's thresholds."""
        return RefinePolicy(
            min_rounds=self.refine_min_rounds,
            min_gain=self.refine_min_gain,
            cooldown_s=self.refine_cooldown_s,
            rollback_margin=self.refine_rollback_margin,
            min_recovery_gain=self.drift_min_gain,
            max_slowdown=self.drift_max_slowdown,
        )

    @property
    def drift(self) -> DriftPolicy:
        """When heads have drifted, and a deployment with them."""
        return DriftPolicy(
            window=self.drift_window,
            min_rounds=self.drift_min_rounds,
            floor=self.drift_floor,
            z=self.drift_z,
            share=self.drift_share,
        )


@dataclass(frozen=True)
class ToldSetting:
    """A setting for a person to read; `default` is empty where there is none."""

    variable: str
    kind: str
    default: str
    meaning: str


def told_settings() -> list[ToldSetting]:
    """Every setting, as the program knows it."""
    told = []
    for name, field in Settings.model_json_schema()["properties"].items():
        default = field.get("default")
        kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
        told.append(
            ToldSetting(
                f"HPLB_{name.upper()}",
                " or ".join(_kind(kind) for kind in kinds),
                "" if default is None else str(default),
                " ".join(field.get("description", "").split()),
            )
        )
    return told


def _kind(schema: dict[str, Any]) -> str:
    words = {"integer": "whole number", "number": "number", "boolean": "true or false"}
    signs = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
    }
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f"{words.get(schema['type'], 'text')} {', '.join(bounds)}".strip()
