"""The planner's HTTP interface as the demo uses it."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from profiles.errors import HplbError

Json = dict[str, Any]
POLL_S = 1.0
"""Seldom: every answer costs the planner CPU time beside the shares that are being timed."""


class PlannerError(HplbError):
    """The planner refused, or did not answer in time."""


class PlannerApi:
    """A client of one planner; `alive` raises when a process behind it has ended."""

    def __init__(self, url: str, alive: Callable[[], None]) -> None:
        self._http = httpx.Client(base_url=url, timeout=120)
        self._alive = alive

    def get(self, path: str) -> Json:
        return self._answer(self._http.get(path))

    def post(self, path: str, body: Json) -> Json:
        return self._answer(self._http.post(path, json=body))

    def put(self, path: str, body: Json) -> Json:
        return self._answer(self._http.put(path, json=body))

    def until(self, what: str, ready: Callable[[], Json | None], seconds: float) -> Json:
        """Ask until `ready` gives something; a planner not up yet is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._alive()
            try:
                found = ready()
            except httpx.TransportError:
                found = None
            if found is not None:
                return found
            time.sleep(POLL_S)
        raise PlannerError(f"{what}: not within {seconds:.0f} s")

    @staticmethod
    def _answer(response: httpx.Response) -> Json:
        if response.is_success:
            body: Json = response.json()
            return body
        try:
            problem = response.json()
            words = problem.get("detail") or problem.get("title")
        except ValueError:
            words = response.text[:200]
        request = response.request
        raise PlannerError(f"{request.method} {request.url.path}: {response.status_code}: {words}")
