"""The page in a real Chromium, on a planner that is a process of its own and wants a key."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from solver.plans import Plan
from tests.api.world import World, profile
from tests.real_model import smollm2 as smollm2

KEY = "a key for the page's tests"
CHROMIUM = os.environ.get("HPLB_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
WIDE, NARROW = (1200, 900), (360, 740)
expect.set_options(timeout=30_000)

Opener = Callable[..., Page]


class Planner:
    """`hplb serve` on one port and one database, ended and started again as a test asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[str] | None = None
        headers = {"Authorization": f"Bearer {KEY}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)
        self.world = World(client, None, None)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPLB_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api.main", "serve", "--port", str(self._port)],
            cwd=self._folder,
            env={**inherited, "HPLB_API_KEY": KEY, "HPLB_LEASE_S": "3600"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert re.search(r"http://", line), "the planner did not start"

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def known_model() -> dict[str, object]:
    """The small profile, whose whole step is known too."""
    found = profile("small", layers=3, heads=8)
    found["architecture"]["mlp_size"] = 1024
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium, or set HPLB_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def planning(folder: Path) -> Iterator[Planner]:
    """Two live nodes, a profile of whose model everything is known, and nothing deployed."""
    planner = Planner(folder)
    try:
        planner.start()
        planner.world.client.put("/profiles/small", json=known_model()).raise_for_status()
        for node in ("node-a", "node-b"):
            planner.world.register(node, 1)
        yield planner
    finally:
        planner.kill()


@pytest.fixture
def planner(tmp_path: Path) -> Iterator[Planner]:
    """For one test alone, which may change and end it."""
    with planning(tmp_path) as planner:
        yield planner


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    """For all tests that only look: two generations of `d`, measured."""
    with planning(tmp_path_factory.mktemp("shown")) as planner:
        deployed(planner, "contiguous", "greedy")
        yield planner


def deployed(planner: Planner, *methods: str) -> list[Plan]:
    """A generation of `d` for every method, each measured once."""
    plans = []
    for slow, method in enumerate(methods, start=2):
        plan = planner.world.plan(profile="small", gpus=2, method=method)
        view = planner.world.deploy(plan, ["node-a", "node-b"], refine=False)
        for node, device in (("node-a", 0), ("node-b", 1)):
            batch = planner.world.batch(plan, view, node, [device], slow=float(slow))
            assert planner.world.post(batch).status_code == 200
        plans.append(plan)
    return plans


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Opener]:
    """Opens the page; at the end no request went elsewhere and the page had no fault of its own."""
    elsewhere: list[str] = []
    faults: list[str] = []
    contexts = []

    def open_page(
        planner: Planner,
        at: str = "",
        size: tuple[int, int] = WIDE,
        scheme: str = "light",
        key: str | None = KEY,
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request",
            lambda sent: None if sent.url.startswith(planner.url) else elsewhere.append(sent.url),
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if _is_fault(said.text) else None)
        if key is not None:
            page.add_init_script(f"sessionStorage.setItem('hplb.key', {key!r})")
        page.goto(f"{planner.url}/{at}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert faults == []


def _is_fault(said: str) -> bool:
    """Chromium notes every refused request and lost connection, which tests bring about."""
    return "Failed to load resource" not in said and "ERR_CONNECTION" not in said
