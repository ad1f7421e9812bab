"""Device profiles: data-sheet peaks of a device type, and its fitted rates where it has any.

`h200@0.5` is a share: an H200 whose attention keeps to half of its multiprocessors, so that prefill
and decode can run side by side on one GPU (Nexus, arXiv 2507.06608). To the planner it is a device
type of its own. Its prior assumes that attention slows down as multiprocessors go away and that
nothing else does (selection, projections, memory and links have the whole chip); what executors
measure on that type replaces the assumption, as it does for any other.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from profiles.cost.fitted import Backend
from profiles.cost.rates import Rates
from profiles.cost.work import Phase
from profiles.errors import UnknownNameError

SHARE = "@"
ATTENTION = ("query_blocks", "dense_tile_flops", "gathered_tile_flops")
"""Features of work that keep to a share's multiprocessors."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DeviceProfile(BaseModel):
    """Peak rates of one device; FLOP/s dense in the profile's 16-bit type (fp32 on a CPU).

    `rates`: fitted ones; of a phase the first count.
    `attention_share`: of the multiprocessors, what attention keeps to.
    `backend`: what executors compute with on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    source: str
    memory_bytes: Annotated[int, Field(gt=0)]
    peak_flops: Positive
    memory_bandwidth: Positive
    link_bandwidth: Positive
    launch_s: Positive
    backend: Backend = "triton"
    attention_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    rates: list[Rates] = []

    def fitted(self, phase: Phase) -> Rates | None:
        """The rates shipped for this phase, if somebody fitted them."""
        return next((rates for rates in self.rates if rates.phase == phase), None)

    def shared(self, share: float) -> Self:
        """This device with `share` of its multiprocessors for attention, and of its memory."""
        name = f"{self.name}{SHARE}{share:.2f}".rstrip("0")
        return self.model_copy(
            update={
                "name": name,
                "description": f"{share:.0%} of the multiprocessors of one {self.description}",
                "memory_bytes": int(self.memory_bytes * share),
                "attention_share": share,
                "rates": [_slowed(rates, share, name) for rates in self.rates],
            }
        )


def split_name(name: str) -> tuple[str, float]:
    """A device type's name without its share, and the share, 1 for the whole device.

    Raises UnknownNameError where the share is none.

    >>> split_name("h200@0.5"), split_name("h200")
    (('h200', 0.5), ('h200', 1.0))
    """
    base, mark, text = name.partition(SHARE)
    if not mark:
        return name, 1.0
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1 or base == "cpu" or text != f"{share:.2f}".rstrip("0"):
        raise UnknownNameError(
            f"device type {name!r}: a share is of a GPU, above 0 and below 1, with at most two "
            "decimals, e.g. h200@0.5"
        )
    return base, share


def _slowed(rates: Rates, share: float, name: str) -> Rates:
    slower = {
        feature: seconds / share if feature in ATTENTION else seconds
        for feature, seconds in rates.seconds_per.items()
    }
    return rates.model_copy(
        update={
            "device": name,
            "seconds_per": slower,
            "std": None,
            "samples": 0,
            "source": f"rates of the whole device, attention slowed {1 / share:.3g} times: "
            "assumed, unmeasured",
        }
    )
