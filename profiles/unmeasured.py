"""A profile of a model of which nothing but its shape is known: every head reads everything."""

from pathlib import Path

from profiles.config_json import architecture_from_config
from profiles.fetched import known_folder
from profiles.heads import MAX_TOKENS, BudgetsForm
from profiles.model import ModelProfile, as_name


def unmeasured_profile(model: str) -> ModelProfile:
    """The shape in a folder's `config.json`, of the reference model or of a fetched one by name.

    Budgets are as large as they get: the whole context. Raises ProfileError, and MeasuringError
    where a fetched model is not here.
    """
    folder = known_folder(model) or Path(model)
    architecture = architecture_from_config(folder / "config.json")
    name = as_name(folder.resolve().name) or "model"
    tokens = [[float(MAX_TOKENS)] * architecture.query_heads] * architecture.layers
    return ModelProfile(
        name=name,
        architecture=architecture,
        heads=BudgetsForm(tokens=tokens),
        source=f"config.json of {name}: its shape alone, nothing measured",
        synthetic=False,
    )
