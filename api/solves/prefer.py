"""What a client prefers of a long solve: RFC 7240's `respond-async` and `wait`."""

import re
from collections.abc import Iterable

APPLIED = "respond-async"
LONGEST_WAIT_S = 600.0
PREFERENCE = re.compile(r'\s*([\w-]+)\s*(?:=\s*"?([^";]*)"?)?\s*(?:;.*)?', re.ASCII | re.DOTALL)


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
