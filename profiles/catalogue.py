"""What is shipped, by name: model profiles, device types, and the rates measured on them."""

import os
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import TypeAdapter

from profiles.cost.rates import Rates
from profiles.cost.roofline import roofline
from profiles.cost.work import Phase
from profiles.device import DeviceProfile, split_name
from profiles.errors import UnknownNameError
from profiles.model import ModelProfile

DEFAULT_PROFILE = "llama-3.1-8b-synthetic"
DEVICES = files("profiles") / "catalog" / "devices"
MEASURED: Traversable = files("profiles") / "catalog" / "measured"
"""Rates that `benchmarks.gpu_results` fitted to what our own kernels did, a file a device type."""
PROFILES = files("profiles") / "catalog" / "models"
REFERENCE_MODEL = "reference"
REFERENCE_FOLDER = Path(str(files("profiles") / "catalog" / "reference"))
"""The model that is shipped, in transformers' format."""
REFERENCE_PROFILE = "reference-model"
"""What was measured on it."""
REFERENCE_PROMPTS = REFERENCE_FOLDER / "prompts.jsonl"
"""Held-out prompts of its longest context, for whoever wants to see it work."""


@cache
def catalogue_names() -> tuple[str, ...]:
    """The profiles that are shipped, sorted."""
    return tuple(sorted(file.name.removesuffix(".json") for file in PROFILES.iterdir()))


@cache
def catalogue_profile(name: str) -> ModelProfile:
    """A shipped profile; UnknownNameError for any other name. Never opens a path it is given."""
    if name not in catalogue_names():
        raise UnknownNameError(
            f"unknown profile {name!r}: the catalogue has {', '.join(catalogue_names())}"
        )
    return ModelProfile.parse((PROFILES / f"{name}.json").read_bytes(), name)


def load_profile(name_or_path: str | Path) -> ModelProfile:
    """A shipped model profile by name, or else the profile file at this path.

    >>> from profiles import load_profile
    >>> profile = load_profile("llama-3.1-8b-synthetic")
    >>> profile.architecture.layers, profile.architecture.query_heads, profile.heads.form
    (32, 32, 'recovery_curves')

    Raises UnknownNameError where there is neither, ProfileError where the file is no profile.
    """
    name = str(name_or_path)
    if name not in catalogue_names() and os.path.exists(name):
        return ModelProfile.load(Path(name))
    try:
        return catalogue_profile(name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error}; nor is there such a file (`hplb profiles import` makes one)"
        ) from None


@cache
def device_names() -> tuple[str, ...]:
    """The device types in the catalogue."""
    return tuple(sorted(f.name.removesuffix(".json") for f in DEVICES.iterdir()))


@cache
def device_profile(name: str) -> DeviceProfile:
    """The catalogue's profile of a device type, or of a share of one.

    >>> device_profile("h100").memory_bytes, device_profile("h100@0.5").memory_bytes
    (80000000000, 40000000000)

    Raises UnknownNameError, which lists the types there are.
    """
    base, share = split_name(name)
    if base not in device_names():
        raise UnknownNameError(
            f"unknown device type {name!r}: known are {', '.join(device_names())}, and shares of "
            "GPUs such as h200@0.5"
        )
    sheet = DeviceProfile.model_validate_json((DEVICES / f"{base}.json").read_text())
    whole = sheet.model_copy(update={"rates": [*measured_rates(base), *sheet.rates]})
    return whole if share == 1 else whole.shared(share)


def measured_rates(name: str) -> list[Rates]:
    """Rates of a whole device that our own kernels were measured at, none where none were."""
    file = MEASURED / f"{name}.json"
    return TypeAdapter(list[Rates]).validate_json(file.read_text()) if file.is_file() else []


def catalogue_rates(types: Iterable[str], phase: Phase) -> dict[str, Rates]:
    """Rates by device type: fitted where somebody measured, the data sheet's otherwise."""
    rates = {}
    for name in dict.fromkeys(types):
        device = device_profile(name)
        rates[name] = device.fitted(phase) or roofline(device, phase)
    return rates
