"""`hplb executor`: a node that computes and measures what the planner assigns to it."""

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Annotated, TextIO, cast
from uuid import uuid4

import structlog
import typer

from api.client.bodies import NodeRegistration
from api.client.planner_client import PlannerClient
from executor.errors import CannotMeasureError
from executor.machine import PACKAGES, gpu_type
from profiles.catalogue import device_names, device_profile
from profiles.cli.console import clear_errors, fail
from profiles.cli.flags import model_names
from profiles.cli.log_stream import LogStream
from profiles.device import split_name
from profiles.model import NAME_PATTERN
from profiles.tasks.documents import prompts_at
from profiles.versions import versions

if find_spec("torch") is None:
    raise ModuleNotFoundError("hplb executor needs torch: pip install hplb[executor]", name="torch")

app = typer.Typer()


@contextmanager
def _logged_plainly() -> Iterator[None]:
    """One line for each step on stderr; what is logged is written out at the end."""
    stream = LogStream(sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
    )
    try:
        yield
    finally:
        stream.close()


@app.command("executor")
@clear_errors()
@_logged_plainly()
def executor_command(
    server: Annotated[
        str, typer.Option(help="The planner's URL; its key comes from HPLB_API_KEY.")
    ],
    devices: Annotated[int, typer.Option(min=1, max=1024, help="Devices this node plays.")] = 1,
    device_type: Annotated[
        str | None,
        typer.Option(
            "--device-type",
            "--type",
            help="Their type; found out where it can be.",
            autocompletion=lambda: list(device_names()),
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, torch or triton.")] = "auto",
    node_id: Annotated[str | None, typer.Option(help="This node's name; the host's.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Checkpoint and spool; ~/.local/state/hplb/NODE_ID.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Compute the activations of this model (folder or name), not random ones.",
            autocompletion=model_names,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="What it reads, round after round: JSON lines, a text, or a folder."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Measure one assignment, hand it over and end.")
    ] = False,
) -> None:
    """Calibrate a node without an engine: time its share of the plan that is live, by itself.

    A node whose engine reports is measured there, on its requests.

    Example: hplb executor --server http://127.0.0.1:8000 --devices 2 --device-type cpu
    """
    name = node_id if node_id is not None else socket.gethostname()
    if not re.fullmatch(NAME_PATTERN, name):
        fail(f"--node-id: {name!r} must be letters, digits, '.', '_' or '-', at most 128")
    if (model is None) != (data is None):
        fail("--model and --data: one needs the other")
    read = [] if data is None else prompts_at(data)
    log = structlog.get_logger()
    log.info(
        "starting: calibrates a node without an engine; one whose engine reports is measured there",
        node=name,
        devices=devices,
    )

    # torch takes seconds to load: `hplb --help` does without.
    from executor.node.bench import Bench
    from executor.node.daemon import Daemon
    from executor.reports.spool import Spool
    from executor.reports.state import NodeState

    types, accelerators = local_devices(devices, device_type)
    chosen = node_backend(backend, accelerators)
    traffic = None
    if model is not None:
        from executor.node.traffic import Traffic

        traffic = Traffic(model, read, accelerators[0])
        log.info("prompts are run through a model", model=model, prompts=len(read))
    client = PlannerClient(server, os.environ.get("HPLB_API_KEY"))
    folder = state_dir if state_dir is not None else Path.home() / ".local/state/hplb" / name
    state = NodeState(folder)
    daemon = Daemon(
        NodeRegistration(
            node_id=name,
            boot_id=str(uuid4()),
            devices=types,
            backend=chosen,
            versions=versions(*PACKAGES),
        ),
        client,
        Bench(accelerators, chosen, multiprocessors(types, accelerators), traffic),
        state,
        Spool(folder / "spool"),
        once,
    )
    _stop_on_signals(daemon.stop)
    daemon.run()
    log.info("stopped")


def local_devices(count: int, device_type: str | None) -> tuple[list[str], list[str]]:
    """Types and accelerators of `count` local devices.

    GPUs are dealt out in turn: with more devices than GPUs several share one, each still timed
    alone. Raises UnknownNameError for a type that is in no catalogue, CannotMeasureError for one
    that is not there or not recognised.
    """
    import torch

    if device_type is not None:
        device_profile(device_type)
    gpus = torch.cuda.device_count()
    if device_type == "cpu" or (device_type is None and not gpus):
        return ["cpu"] * count, ["cpu"] * count
    if not gpus:
        raise CannotMeasureError(
            f"--device-type {device_type}: no CUDA device here; --device-type cpu runs"
        )
    places = [index % gpus for index in range(count)]
    types = [device_type or gpu_type(torch.cuda.get_device_name(place)) for place in places]
    return types, [f"cuda:{place}" for place in places]


def multiprocessors(types: list[str], accelerators: list[str]) -> list[int | None]:
    """How many multiprocessors each local device keeps to: a share of its type's, or None."""
    import torch

    shares = [split_name(kind)[1] for kind in types]
    return [
        None
        if share == 1
        else max(1, round(share * torch.cuda.get_device_properties(place).multi_processor_count))
        for share, place in zip(shares, accelerators, strict=True)
    ]


def node_backend(name: str, accelerators: list[str]) -> str:
    """The back end called `name`; "auto" is triton on GPUs and torch on the CPU.

    Raises UnknownNameError, and CannotMeasureError where the back end is the other's: Triton on a
    CPU would be an interpreter, whose seconds say nothing.
    """
    import torch

    from executor.attention.backends import resolve_backend

    fitting = resolve_backend("auto", torch.device(accelerators[0]))
    chosen = resolve_backend(name, torch.device(accelerators[0]))
    if chosen != fitting:
        raise CannotMeasureError(
            f"--backend {chosen}: {accelerators[0]} is measured with {fitting}"
        )
    return chosen


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """End after the share in progress on the first SIGTERM or SIGINT, at once on the second."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        # The handler interrupts a thread that may hold the very lock that stopping needs.
        Thread(target=stop).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
