"""What is known: what the heads of a model need, what devices can do, and what both cost.

A model profile says what each attention head needs, a device profile what a device can do.

>>> from profiles import device_profile, load_profile
>>> profile = load_profile("llama-3.1-8b-synthetic")  # a catalogue name or a path
>>> profile.architecture.layers, profile.architecture.query_heads, profile.architecture.kv_heads
(32, 32, 8)
>>> device_profile("h200").memory_bandwidth  # bytes a second
4800000000000.0

Profiles of one's own come from a published file, or from measuring a model:

    import_profile("Meta-Llama-3.1-8B-Instruct.tsv", name="duo").save("duo.json")
    measure("my-model/", "prompts.jsonl", contexts=[1024, 4096]).save("mine.json")

`Rates` are seconds per unit of work on a device; `refit` learns them from what was measured there.

Nothing here is loaded before it is asked for, and torch only when `measure` is called.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiles.catalogue import device_profile, load_profile
    from profiles.cost.rates import Rates
    from profiles.cost.regression import refit
    from profiles.device import DeviceProfile
    from profiles.importers.kinds import import_profile
    from profiles.measuring import measure
    from profiles.model import ModelProfile

__all__ = [
    "DeviceProfile",
    "ModelProfile",
    "Rates",
    "device_profile",
    "import_profile",
    "load_profile",
    "measure",
    "refit",
]

_HOMES = {
    "DeviceProfile": "profiles.device",
    "ModelProfile": "profiles.model",
    "Rates": "profiles.cost.rates",
    "device_profile": "profiles.catalogue",
    "import_profile": "profiles.importers.kinds",
    "load_profile": "profiles.catalogue",
    "measure": "profiles.measuring",
    "refit": "profiles.cost.regression",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
