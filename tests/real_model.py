"""The real model that tests may need: fetched once a machine, whoever asks first."""

from pathlib import Path

import pytest

from profiles.errors import MeasuringError
from profiles.fetched import SMOLLM2


def smollm2() -> Path:
    """Its folder in the user's cache; skips the test, with the reason, where it is not to be had.

    Fetching locks the cache: other workers wait for the first.
    """
    pytest.importorskip("transformers")
    from profiles.measuring.fetching import fetch

    try:
        return fetch(SMOLLM2, lambda *_: None)
    except MeasuringError as error:
        pytest.skip(str(error))
