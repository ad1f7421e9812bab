"""The rates a plan is made with where no service is asked: the catalogue's, else the roofline."""

from collections.abc import Iterable

from profiles.cost.rates import Rates
from profiles.cost.roofline import roofline
from profiles.cost.work import Phase
from profiles.device import device_profile


def catalogue_rates(types: Iterable[str], phase: Phase) -> dict[str, Rates]:
    """Rates by device type: fitted where somebody measured, the data sheet's otherwise."""
    rates = {}
    for name in dict.fromkeys(types):
        device = device_profile(name)
        rates[name] = device.fitted(phase) or roofline(device, phase)
    return rates
