"""Bodies become what they say: small ones at once, large ones in a process of their own.

A thread would hold the interpreter just as long: parsing and validating are each one call into C.
"""

import asyncio
import io
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from pydantic import BaseModel, ValidationError

from api.client.bodies import FieldError
from api.field_errors import field_errors
from profiles.model import ModelProfile
from profiles.strict_json import JsonError, parse_json
from solver.request import PlanRequest

MOST_KEYS = 1000
"""In one object. Each that no field is of costs a kilobyte."""
LONGEST_S = 30.0
"""No body within its limits takes as long, however busy the machine."""
LEAST = 16
PART = 2**14
"""Figures that are unpickled in one call: a millisecond in which nothing else runs."""


@dataclass(frozen=True)
class Refusal:
    """Why a body is none: its status, and bad fields or what is wrong with all of it."""

    status: int
    detail: str
    fields: list[FieldError]


class UnreadError(Exception):
    """A body was not read, for no fault of its own that is known."""


def read(kind: type[BaseModel], content: bytes) -> BaseModel | Refusal:
    """What a body says, or why it says nothing."""
    try:
        value = parse_json(content, most_keys=MOST_KEYS)
    except JsonError as error:
        if error.field:
            return Refusal(422, "", [FieldError(field=error.field, message=error.message)])
        return Refusal(400, f"the body is {error}", [])
    try:
        body = kind.model_validate(value)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        return Refusal(422, "", field_errors(faults, value))
    return body


class BodyReader:
    """The process is started for the first large body, and again after one that it died of."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "bodies")
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    async def read(self, kind: type[BaseModel], content: list[bytes]) -> BaseModel | Refusal:
        """What a large body says, whose content is taken out of the list once it is handed over.

        Raises UnreadError where the process died or is stuck.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._ask, kind, content)

    def stop(self) -> None:
        """End the process; safe to call twice."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._process is not None:
            self._process.kill()

    def _ask(self, kind: type[BaseModel], content: list[bytes]) -> BaseModel | Refusal:
        try:
            pipe = self._pipe or self._start()
            pipe.send(kind)
            pipe.send_bytes(content.pop())
            if not pipe.poll(LONGEST_S):
                raise EOFError
            return unpacked(pipe.recv_bytes())
        except (EOFError, OSError):
            if self._process is not None:
                self._process.kill()
            self._process = self._pipe = None
            raise UnreadError from None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # A daemon ends with an orderly interpreter; with one that is killed, by its pipe.
        self._process = context.Process(target=_serve, args=(theirs,), name="bodies", daemon=True)
        self._process.start()
        theirs.close()
        return self._pipe


def _serve(pipe: Connection) -> None:
    """The process: one body after the other, until nobody holds the pipe's other end."""
    # Whoever sends much can wait where cores are few; whoever asks the service cannot.
    os.nice(10)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            # Nothing of a body is kept while the next one is waited for.
            pipe.send_bytes(_answer(pipe.recv(), pipe.recv_bytes()))


def _answer(kind: type[BaseModel], content: bytes) -> memoryview:
    answer = read(kind, content)
    del content
    for profile in _profiles(answer):
        # Named and written out here, both remembered: the service would stand still meanwhile.
        _ = profile.digest, profile.text
    return packed(answer)


def packed(answer: BaseModel | Refusal) -> memoryview:
    """An answer as it travels: the service's loop has its turn while it is `unpacked`."""
    written = io.BytesIO()
    _Packer(written, pickle.HIGHEST_PROTOCOL).dump(answer)
    return written.getbuffer()


def unpacked(content: bytes | memoryview) -> BaseModel | Refusal:
    """The answer again."""
    answer: BaseModel | Refusal = _Unpacker(io.BytesIO(content)).load()
    return answer


class _Packer(pickle.Pickler):
    """Puts long lists of figures in parts."""

    def persistent_id(self, thing: object) -> list[bytes] | None:
        if type(thing) is not list or len(thing) < LEAST or type(thing[0]) not in (float, int):
            return None
        parts = (thing[at : at + PART] for at in range(0, len(thing), PART))
        return [pickle.dumps(part, pickle.HIGHEST_PROTOCOL) for part in parts]


class _Unpacker(pickle.Unpickler):
    """Puts them together: each call into Python lets another thread go on that waits."""

    def persistent_load(self, parts: list[bytes]) -> list[float]:
        together: list[float] = []
        for at, part in enumerate(parts):
            together += pickle.loads(part)
            parts[at] = b""
        return together


def _profiles(body: BaseModel | Refusal) -> list[ModelProfile]:
    if isinstance(body, ModelProfile):
        return [body]
    if isinstance(body, PlanRequest):
        found = [body.profile, *(step.profile for step in body.workloads or [])]
        return [profile for profile in found if isinstance(profile, ModelProfile)]
    return []
