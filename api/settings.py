"""What the service can be told: every field is also the environment variable HPLB_<FIELD>."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.refine import Policy

MIB = 2**20


class Settings(BaseSettings):
    """The defaults run a service for one person on one machine."""

    model_config = SettingsConfigDict(env_prefix="HPLB_", frozen=True)

    database_url: str = "sqlite:///hplb.db"
    api_key: SecretStr | None = None
    max_body_bytes: Annotated[int, Field(ge=1)] = 32 * MIB
    solver_workers: Annotated[int, Field(ge=1, le=64)] = 2
    solver_queue: Annotated[int, Field(ge=0, le=1000)] = 16
    lease_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    sample_window: Annotated[int, Field(ge=1, le=100_000)] = 4000
    refine_min_rounds: Annotated[int, Field(ge=1)] = Policy.min_rounds
    refine_min_gain: Annotated[float, Field(ge=0, lt=1)] = Policy.min_gain
    refine_cooldown_s: Annotated[float, Field(ge=0)] = Policy.cooldown_s
    refine_rollback_margin: Annotated[float, Field(ge=0)] = Policy.rollback_margin

    @field_validator("api_key", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        # Compose files pass on an unset variable as an empty one.
        return None if isinstance(value, str) and not value.strip() else value

    @property
    def policy(self) -> Policy:
        """The refine loop's thresholds."""
        return Policy(
            min_rounds=self.refine_min_rounds,
            min_gain=self.refine_min_gain,
            cooldown_s=self.refine_cooldown_s,
            rollback_margin=self.refine_rollback_margin,
        )
