"""The model that is shipped, and the profile measured on it, belong together and work."""

import numpy as np
import pytest

from profiles.catalogue import (
    REFERENCE_FOLDER,
    REFERENCE_MODEL,
    REFERENCE_PROFILE,
    REFERENCE_PROMPTS,
    catalogue_profile,
)
from profiles.heads import CurvesForm
from profiles.tasks.prompts import read
from profiles.tasks.ruler import TASKS
from profiles.weights import sha256_of, weights_of


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in REFERENCE_FOLDER.iterdir()) <= 15 * 10**6
    names = {file.name for file in REFERENCE_FOLDER.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names


def test_the_profile_was_measured_on_these_weights() -> None:
    pytest.importorskip("transformers")
    from profiles.measuring.loading import folder_of

    profile = catalogue_profile(REFERENCE_PROFILE)
    assert profile.measurement is not None
    assert not profile.synthetic
    folder = folder_of(REFERENCE_MODEL)
    assert profile.measurement.weights_sha256 == sha256_of(weights_of(folder))
    assert set(profile.measurement.prompts) == set(TASKS)


def test_heads_are_heterogeneous_and_stable() -> None:
    """What budgets per head live on (S-HPLB, sections 2.3 and 2.4), on a model trained here."""
    profile = catalogue_profile(REFERENCE_PROFILE)
    assert isinstance(profile.heads, CurvesForm)
    assert profile.measurement is not None
    recovery = np.array(profile.heads.recovery)[:, :, -1]
    budgets = np.array(profile.heads.budget_tokens[-1])
    needed = np.array(
        [[float(np.interp(0.9, head, budgets)) for head in layer] for layer in recovery]
    )
    assert needed.max() > 4 * needed.min()
    across = [s.model for s in profile.measurement.stability if s.axis == "context"]
    assert all(found is not None and found > 0.8 for found in across)


def test_its_prompts_are_held_out_ones_of_every_task() -> None:
    prompts = read(REFERENCE_PROMPTS)
    assert {prompt.task for prompt in prompts} == set(TASKS)
    assert {prompt.tokens for prompt in prompts} == {2048}
