"""Runs the application under uvicorn so that it stops promptly, long polls and solves included."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from prometheus_client.core import CounterMetricFamily

from api import logs
from api.app import create_app
from api.client.loopback import is_loopback
from api.connections import PromptProtocol
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from profiles.cli.log_stream import LogStream
from profiles.errors import HplbError

GRACE_S = 2
"""For answers still on their way when the service is told to stop."""
SWITCH_S = 0.0005
"""How long a thread may hold the interpreter while another waits. An answer takes its turn ten
times: beside a thread that reads a large body Python's own 5 ms would make that 50."""


class ServeError(HplbError):
    """The service cannot listen as it was told to."""


class _Server(uvicorn.Server):
    """Ends long polls and solves with the signal: uvicorn waits for their answers first."""

    def __init__(
        self, config: uvicorn.Config, service: Service, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # Not from within the handler: the locks it takes may be held by the interrupted code.
        self._loop.call_soon_threadsafe(self._service.stop)


def serve(
    host: str, port: int, settings: Settings, on_started: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; `on_started` gets the address once it answers.

    Raises ServeError where the address is not loopback and no key is set, or cannot be bound;
    StoreError where the database cannot be used.
    """
    with logs.configured() as log, _listen(host, port) as listener:
        url = _url(listener)
        service = Service.make(settings, Database.open(settings.database_url))
        service.metrics.scrape(lambda: [_lost(log)])
        service.keyring.reload()
        if not service.keyring.asks and not is_loopback(host):
            raise ServeError(
                f"{host} can be reached from other machines: make keys (hplb keys create), or set "
                "HPLB_API_KEY to a secret that clients send as their bearer key, or serve on "
                "127.0.0.1"
            )
        config = uvicorn.Config(
            create_app(service=service),
            http=PromptProtocol,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        started = on_started or (lambda _: None)
        server = _Server(config, service, lambda: started(url))
        sys.setswitchinterval(SWITCH_S)
        # What is there now stays: no collection need go through it again, which takes 0.1 s.
        gc.collect()
        gc.freeze()
        server.run(sockets=[listener])


def _lost(log: LogStream) -> CounterMetricFamily:
    return CounterMetricFamily(
        "hplb_log_lines_lost", "Lines of the log that were not read in time.", log.lost
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only where a socket says its protocol, and without
        # it the end of a short answer waits 40 ms for the client to acknowledge the beginning.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ServeError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    except UnicodeError:
        raise ServeError(f"cannot listen on {host!r}: that is no host name") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def stop_on_terminate() -> None:
    """Let SIGTERM end the process as Ctrl-C does: after the clean stop, without a traceback."""

    def terminate(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)
