"""What a client prefers of a solve: RFC 7240's `respond-async` and `wait`, RFC 9218's urgency."""

import re
from collections.abc import Iterable

APPLIED = "respond-async"
LONGEST_WAIT_S = 600.0
PREFERENCE = re.compile(r'\s*([\w-]+)\s*(?:=\s*"?([^";]*)"?)?\s*(?:;.*)?', re.ASCII | re.DOTALL)
USUAL = 3
BACKGROUND = 7
"""RFC 9218's urgency: the default, and what is done when nothing else is to do."""
URGENCY = re.compile(r"(?:.*,)?\s*u=([0-7])\s*(?:[,;].*)?", re.ASCII | re.DOTALL)


def seconds_to_wait(headers: Iterable[str]) -> float | None:
    """How long to hold the answer back before it is 202; None where the client just waits.

    Of a preference said twice the first counts; what makes no sense is ignored, as the RFC says.
    """
    said: dict[str, str] = {}
    for preference in ",".join(headers).split(","):
        if found := PREFERENCE.fullmatch(preference):
            said.setdefault(found[1].lower(), (found[2] or "").strip())
    if re.fullmatch(r"[0-9]+", said.get("wait", "")):
        return min(float(said["wait"]), LONGEST_WAIT_S)
    return 0.0 if "respond-async" in said else None


def urgency(header: str | None) -> int:
    """The `u` of a `Priority` header, least first; the usual where it makes no sense."""
    found = URGENCY.fullmatch(header or "")
    return int(found[1]) if found else USUAL
