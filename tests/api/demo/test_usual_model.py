"""The real model where it can be had, the shipped one where it cannot."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from api.demo.usual_model import usual_model
from profiles.catalogue import REFERENCE_MODEL, REFERENCE_PROFILE, catalogue_profile
from profiles.fetched import SMOLLM2
from profiles.weights import sha256_of, weights_of

pytest.importorskip("torch", reason="fetching needs torch")


@pytest.mark.slow
def test_without_a_network_the_shipped_model_and_a_line_about_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPLB_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = StringIO()
    assert usual_model(Console(file=said, width=200)) == (REFERENCE_MODEL, REFERENCE_PROFILE)
    assert said.getvalue().splitlines() == [
        "smollm2-135m cannot be had here: the shipped reference model runs in its place"
    ]
    assert "error: " in capfd.readouterr().err


@pytest.mark.slow
def test_what_was_fetched_is_what_the_profile_was_measured_on(smollm2: Path) -> None:
    assert usual_model(Console(file=StringIO())) == (SMOLLM2.name, SMOLLM2.name)
    measured = catalogue_profile(SMOLLM2.name).measurement
    assert measured is not None
    assert measured.weights_sha256 == sha256_of(weights_of(smollm2))
