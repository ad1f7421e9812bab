"""Device profiles: data-sheet peaks of a device type, and its fitted rates where it has any."""

from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from profiles.cost.rates import Rates
from profiles.cost.work import Phase
from profiles.errors import UnknownNameError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DeviceProfile(BaseModel):
    """Peak rates of one device; FLOP/s dense in the profile's 16-bit type (fp32 on a CPU)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    source: str
    memory_bytes: Annotated[int, Field(gt=0)]
    peak_flops: Positive
    memory_bandwidth: Positive
    link_bandwidth: Positive
    launch_s: Positive
    rates: list[Rates] = []

    def fitted(self, phase: Phase) -> Rates | None:
        """The rates shipped for this phase, if somebody fitted them."""
        return next((rates for rates in self.rates if rates.phase == phase), None)


@cache
def device_names() -> tuple[str, ...]:
    """The device types in the catalogue."""
    folder = files("profiles") / "catalog" / "devices"
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir()))


@cache
def device_profile(name: str) -> DeviceProfile:
    """The catalogue's profile of a device type."""
    if name not in device_names():
        raise UnknownNameError(
            f"unknown device type {name!r}: known are {', '.join(device_names())}"
        )
    text = (files("profiles") / "catalog" / "devices" / f"{name}.json").read_text()
    return DeviceProfile.model_validate_json(text)
