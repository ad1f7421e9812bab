"""A throw-away PostgreSQL server: for tests, benchmarks, and by hand (`python -m tests.postgres`).

Where this runs as root the server runs as the unprivileged user that its package made. Nothing is
installed here: `python -m tests.postgres --install` tries apt, as CI does.
"""

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

INSTALLED = "/usr/lib/postgresql"
USER = "postgres"
START_S = 60.0


class Postgres:
    """A server in a folder of its own; `url` is SQLAlchemy's."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.address = address
        with socket.create_server((address, 0)) as listener:
            self.port = listener.getsockname()[1]
        self._as = pwd.getpwnam(USER) if os.geteuid() == 0 else None
        if self._as:
            os.chown(folder, self._as.pw_uid, self._as.pw_gid)
        self.user = self._as.pw_name if self._as else pwd.getpwuid(os.geteuid()).pw_name
        self._run("initdb", "-D", self._data, "-A", "trust", "--no-sync", "-E", "UTF8")
        with open(folder / "data" / "pg_hba.conf", "a") as known:
            known.write("host all all samenet trust\n")

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        """The URL of a database of this name."""
        return f"postgresql+psycopg://{self.user}@{self.address}:{self.port}/{name}"

    def create(self, name: str) -> str:
        """A new, empty database; its URL."""
        self._run(
            "psql",
            "-q",
            "-h",
            self.address,
            "-p",
            str(self.port),
            "-d",
            "postgres",
            "-c",
            f'DROP DATABASE IF EXISTS "{name}"',
            "-c",
            f'CREATE DATABASE "{name}"',
        )
        return self.database(name)

    def start(self) -> None:
        """Serve; returns once it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses={self.address}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        """End at once, as a crash would, or `fast`."""
        self._run("pg_ctl", "-D", self._data, "-m", how, "-w", "stop")

    @property
    def running(self) -> bool:
        return (self.folder / "data" / "postmaster.pid").exists()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        found = _programs()
        assert found is not None
        done = subprocess.run(
            [str(found / program), *arguments],
            user=self._as.pw_uid if self._as else None,
            group=self._as.pw_gid if self._as else None,
            extra_groups=[] if self._as else None,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=START_S,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")


def missing() -> str | None:
    """Why no server can be started here, or None."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        return "psycopg is not installed (pip install -e '.[postgres]')"
    if _programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(USER)
        except KeyError:
            return f"root may not run PostgreSQL, and there is no user {USER!r}"
    return None


def _programs() -> Path | None:
    """The folder of the newest installed version's programs."""
    versions = [v for v in Path(INSTALLED).glob("*/bin") if (v / "initdb").exists()]
    on_path = shutil.which("initdb")
    if versions:
        return max(versions, key=lambda path: int(path.parent.name))
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Postgres]:
    """A server that answers, and is gone afterwards with all its data."""
    folder = Path(tempfile.mkdtemp(prefix="hplb-postgres-"))
    try:
        server = Postgres(folder, address)
        server.start()
        try:
            yield server
        finally:
            if server.running:
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install() -> str | None:
    """Install PostgreSQL where that is missing and apt works without asking; why not, or None."""
    if _programs() is not None:
        return None
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and shutil.which("sudo") is None:
        return "not root, and there is no sudo"
    for step in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run(
            [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *step],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return f"apt-get {step[0]} failed: {' '.join(last)}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="try apt, and say what came of it")
    if parser.parse_args().install:
        why_not = install() or missing()
        sys.stdout.write(f"PostgreSQL: {why_not or 'installed'}\n")
        return 0
    if why := missing():
        sys.stderr.write(f"error: {why}\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with serving() as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
