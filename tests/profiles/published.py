"""Real published files, kept beside the project and not in it."""

from pathlib import Path

import pytest

HEADS = Path(__file__).resolve().parents[2] / "../shared/data/heads"


def published(*parts: str) -> Path:
    """The file `heads/<parts>`; skips the test where it is absent."""
    path = HEADS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path
