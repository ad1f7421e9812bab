"""A plan's id is the SHA-256 of its canonical JSON without timings and timestamps."""

import hashlib
import json
from typing import Any

UNTIMED = ("id", "solve_s", "created_at")


def identity(plan: dict[str, Any]) -> list[str]:
    """Whether the id is that of the content as it stands, fields left out staying out."""
    content = {name: value for name, value in plan.items() if name not in UNTIMED}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ["id: the content is not JSON, so that it has none"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return [] if digest == plan.get("id") else [f"id is not the SHA-256 of the content ({digest})"]
