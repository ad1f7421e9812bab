"""What the service can be told: every field is also the environment variable HPLB_<FIELD>."""

from typing import Annotated, Self

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

    model_config = SettingsConfigDict(env_prefix="HPLB_", frozen=True)

    database_url: str = "sqlite:///hplb.db"
    api_key: SecretStr | None = None
    allowed_hosts: str = ""
    max_body_bytes: Annotated[int, Field(ge=1)] = 16 * MIB
    solver_workers: Annotated[int, Field(ge=1, le=64)] = 2
    solver_queue: Annotated[int, Field(ge=0, le=1000)] = 16
    solver_memory_bytes: Annotated[int, Field(ge=512 * MIB)] = 2048 * MIB
    client_solves: Annotated[int, Field(ge=1, le=1000)] = 8
    max_time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 600.0
    max_solve_size: Annotated[int, Field(ge=1)] = 2**23
    lease_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    keep_plans: Most = 10_000
    keep_plans_s: Age = None
    keep_batches: Most = 1000
    keep_batches_s: Age = None
    keep_generations: Most = 100
    keep_generations_s: Age = None
    keep_rates: Most = 1000
    keep_rates_s: Age = None
    keep_profiles: Most = None
    keep_profiles_s: Age = None
    sample_window: Annotated[int, Field(ge=1, le=100_000)] = 4000
    refine_time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    refine_min_rounds: Annotated[int, Field(ge=1)] = RefinePolicy.min_rounds
    refine_min_gain: Annotated[float, Field(ge=0, lt=1)] = RefinePolicy.min_gain
    refine_cooldown_s: Annotated[float, Field(ge=0)] = RefinePolicy.cooldown_s
    refine_rollback_margin: Annotated[float, Field(ge=0)] = RefinePolicy.rollback_margin
    drift_window: Annotated[int, Field(ge=1, le=1000)] = DriftPolicy.window
    drift_min_rounds: Annotated[int, Field(ge=1, le=1000)] = DriftPolicy.min_rounds
    drift_floor: Annotated[float, Field(ge=0, le=1)] = DriftPolicy.floor
    drift_z: Annotated[float, Field(ge=0)] = DriftPolicy.z
    drift_share: Annotated[float, Field(ge=0, le=1)] = DriftPolicy.share
    drift_min_gain: Annotated[float, Field(ge=0, lt=1)] = RefinePolicy.min_recovery_gain
    drift_max_slowdown: Annotated[float, Field(ge=0)] = RefinePolicy.max_slowdown

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
