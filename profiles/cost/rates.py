"""Rates: seconds per unit of work on a device type in a phase, with where they come from."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.cost.work import FEATURES, Phase, Workload

Floats = NDArray[np.float64]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Rates(BaseModel):
    """Seconds per unit of every feature of `profiles.cost.work.FEATURES`.

    `std` is the standard deviation of each (null for a prior nobody measured);
    `fitted_to_tokens` the longest context among the measurements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    phase: Phase
    seconds_per: dict[str, Seconds]
    std: dict[str, Seconds] | None = None
    fitted_to_tokens: int | None = None
    samples: int = 0
    source: str

    @model_validator(mode="after")
    def _every_feature(self) -> Self:
        for field, values in (("seconds_per", self.seconds_per), ("std", self.std)):
            if values is not None and set(values) != set(FEATURES):
                raise ValueError(f"{field}: must have exactly the features {', '.join(FEATURES)}")
        return self

    @property
    def vector(self) -> Floats:
        """Seconds per unit, `[FEATURES]`."""
        return np.array([self.seconds_per[name] for name in FEATURES])

    @property
    def version(self) -> str:
        """Names these very rates: plans made with other rates have another version."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def rounded(self) -> Self:
        """The rates to six digits, as a file that people read has them."""
        fields = self.model_dump()
        for name in ("seconds_per", "std"):
            each = fields[name] or {}
            fields[name] = {f: float(f"{v:.6g}") for f, v in each.items()} or None
        return type(self).model_validate(fields)

    @property
    def measured(self) -> bool:
        """Whether any measurement stands behind them."""
        return self.samples > 0

    def seconds(self, work: Floats) -> Floats:
        """Seconds of work `[..., FEATURES]`."""
        return np.asarray(work @ self.vector, dtype=np.float64)

    def extrapolated(self, workload: Workload) -> bool:
        """Whether this workload lies beyond the contexts the rates were fitted on."""
        return self.fitted_to_tokens is not None and workload.context_tokens > self.fitted_to_tokens


RatesOf = Mapping[Phase, Mapping[str, Rates]]
"""By phase and device type."""
