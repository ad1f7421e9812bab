"""The real model that some tests need, for the conftests beside them."""

from pathlib import Path

import pytest

from profiles.errors import MeasuringError
from profiles.fetched import SMOLLM2


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Its folder in the user's cache, fetched by whoever asks first: the others wait for the lock.

    Skips, with the reason, where it is not to be had.
    """
    pytest.importorskip("transformers")
    from profiles.measuring.fetching import fetch

    try:
        return fetch(SMOLLM2, lambda *_: None)
    except MeasuringError as error:
        pytest.skip(str(error))
