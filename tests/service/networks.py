"""A network of its own for a planner, joined to this one by links that can be cut and healed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Link:
    """`here` and `there` are the addresses of its ends; what is sent while it is cut is lost."""

    name: str
    here: str
    there: str

    @contextmanager
    def cut(self) -> Iterator[None]:
        _ip("link", "set", self.name, "down")
        try:
            yield
        finally:
            _ip("link", "set", self.name, "up")


@dataclass(frozen=True)
class Network:
    """One with two links, so that either can be cut while what goes over the other is seen."""

    name: str
    nodes: Link
    database: Link

    @property
    def command(self) -> tuple[str, ...]:
        """What starts a command within it."""
        return ("ip", "netns", "exec", self.name)


@contextmanager
def network() -> Iterator[Network]:
    """A network that is gone afterwards; the test is skipped where there can be none."""
    name = f"hplb-{os.getpid()}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of its own can be made here: {error}")
    try:
        links = [
            Link(f"hplb{part}{os.getpid() % 10**6}", f"10.213.{part}.1", f"10.213.{part}.2")
            for part in (1, 2)
        ]
        _ip("-n", name, "link", "set", "lo", "up")
        for link in links:
            other = f"{link.name}p"
            _ip("link", "add", link.name, "type", "veth", "peer", "name", other, "netns", name)
            _ip("address", "add", f"{link.here}/30", "dev", link.name)
            _ip("-n", name, "address", "add", f"{link.there}/30", "dev", other)
            _ip("link", "set", link.name, "up")
            _ip("-n", name, "link", "set", other, "up")
        yield Network(name, *links)
    finally:
        # The links go with it.
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
