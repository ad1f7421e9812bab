"""Settings that contradict each other."""

import pytest
from pydantic import ValidationError

from api.settings import Settings


def test_more_rounds_than_the_window_holds_are_never_there() -> None:
    with pytest.raises(ValidationError, match=r"drift_min_rounds: 5 rounds never fit .* \(4\)"):
        Settings(drift_window=4, drift_min_rounds=5)
    assert Settings(drift_window=4, drift_min_rounds=4).drift.window == 4
