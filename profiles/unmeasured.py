"""A profile of a model of which nothing but its shape is known: every head reads everything."""

import re
from pathlib import Path

from profiles.catalogue import REFERENCE_FOLDER, REFERENCE_MODEL
from profiles.config_json import architecture_from_config
from profiles.fetched import PUBLISHED, fetched_folder
from profiles.heads import MAX_TOKENS, BudgetsForm
from profiles.model import ModelProfile


def unmeasured_profile(model: str) -> ModelProfile:
    """The shape in a folder's `config.json`, of the reference model or of a fetched one by name.

    Budgets are as large as they get: the whole context. Raises ProfileError, and MeasuringError
    where a fetched model is not here.
    """
    if model == REFERENCE_MODEL:
        folder = REFERENCE_FOLDER
    else:
        folder = fetched_folder(PUBLISHED[model]) if model in PUBLISHED else Path(model)
    architecture = architecture_from_config(folder / "config.json")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip("._-")[:128] or "model"
    tokens = [[float(MAX_TOKENS)] * architecture.query_heads] * architecture.layers
    return ModelProfile(
        name=name,
        architecture=architecture,
        heads=BudgetsForm(tokens=tokens),
        source=f"config.json of {name}: its shape alone, nothing measured",
        synthetic=False,
    )
