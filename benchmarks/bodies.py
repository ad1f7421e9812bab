"""What one body costs the service: CPU, memory, and how long /healthz waits meanwhile.

    python -m benchmarks.bodies [--only NAME] [--limit-s 60] [--json [FILE]]

Each body goes to an `hplb serve` of its own, over loopback. CPU seconds and the peak of resident
memory are of the service and all processes that it started, memory above what they held before;
/healthz is asked every 10 ms from the first byte until a second after the answer. A service that
has not answered in --limit-s is killed, and what it cost until then is told as more than that.
Aims: at most 2 s, 256 MB and 100 ms.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np

from benchmarks import report
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, rates_of
from solver.request import PlanRequest

Row = dict[str, Any]
MIB = 2**20
PLAN_MIB = 29
FITS = 15 * MIB + MIB // 2
AIMS = {"cpu_s": 2.0, "memory_mb": 256.0, "healthz_ms": 100.0}


def _batch(samples: str) -> bytes:
    return (
        '{"batch_id": "b", "deployment": "d", "plan_id": "p", "generation": 1, "node_id": "n", '
        f'"timing": "alone", "samples": [{samples}]}}'
    ).encode()


def _plan(profile: str = '"llama-3.1-8b-synthetic"', more: str = "") -> bytes:
    return f'{{"profile": {profile}, "gpus": 8, "context_tokens": 131072{more}}}'.encode()


def _profile(tokens: str) -> str:
    return (
        '{"name": "wide", "architecture": {"layers": 128, "query_heads": 128, "kv_heads": 8, '
        '"head_dim": 64, "hidden_size": 8192, "dtype": "bfloat16"}, "heads": {"form": "budgets", '
        f'"tokens": {tokens}}}, "source": "made up", "synthetic": true}}'
    )


def _curves(layers: int = 126, heads: int = 128, budgets: int = 24) -> str:
    """A profile as large as the largest public model's, with two sets of curves."""
    rising = np.sort(np.random.default_rng(1).random((2, layers, heads, 1, budgets)), axis=-1)
    contexts = [131072]
    chosen, rough = (np.minimum(c, 0.999).round(6) for c in rising)
    return json.dumps(
        {
            "name": "large",
            "architecture": {
                "layers": layers,
                "query_heads": heads,
                "kv_heads": 8,
                "head_dim": 128,
                "hidden_size": 16384,
                "dtype": "bfloat16",
            },
            "heads": {
                "form": "recovery_curves",
                "context_tokens": contexts,
                "budget_tokens": [[64 * (i + 1) for i in range(budgets)]],
                "recovery": chosen.tolist(),
                "selected_recovery": rough.tolist(),
            },
            "source": "made up",
            "synthetic": True,
        }
    )


def _samples(layers: int = 126, devices: int = 8, heads: int = 16) -> str:
    """One round of a node with all devices of the largest public model, each head reported."""
    report_of = ", ".join(
        f'{{"head": {h}, "rows": 131072, "tiles": 1000000, "recovery": 0.987654}}'
        for h in range(heads)
    )
    return ", ".join(
        f'{{"layer": {layer}, "device": {device}, "seconds": 0.0123, '
        f'"work": {{"dense_tiles": 123456.0, "gathered_tiles": 1234.0}}, "heads": [{report_of}]}}'
        for layer in range(layers)
        for device in range(devices)
    )


def _current(size: int) -> str:
    """A plan of one head on one device, with its seconds on far more device types."""
    asked = PlanRequest.checked(
        profile=ModelProfile.parse(_profile("[[64]]").replace("128", "1").replace("8,", "1,"), "-"),
        gpus=1,
        context_tokens=4096,
        method="contiguous",
    )
    plan = make_plan(asked, rates_of(asked)).model_dump(mode="json")
    plan["costs"]["head_s"] = "HERE"
    text = json.dumps(plan)
    return text.replace('"HERE"', f"[[[{_filled(lambda _: '0.12345678', size - len(text))}]]]")


def _filled(unit: Callable[[int], str], size: int = PLAN_MIB * MIB) -> str:
    """Texts of rising index, joined by commas, of about `size` bytes."""
    return ",".join(map(unit, range(size // (len(unit(10**6)) + 1))))


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "10^6 empty samples": ("/measurements", lambda: _batch(",".join(["{}"] * 10**6))),
    "90 kB of empty samples": ("/measurements", lambda: _batch(",".join(["{}"] * 30_000))),
    "90 kB of wrong numbers": ("/measurements", lambda: _batch(",".join(["0"] * 45_000))),
    "29 MB of unknown keys": ("/plan", lambda: _plan(more="," + _filled(lambda i: f'"k{i}":{i}'))),
    "29 MB of unknown keys, one twice": (
        "/plan",
        lambda: _plan(more="," + _filled(lambda i: f'"k{i}":{i}') + ',"k0":1'),
    ),
    "29 MB of nested lists": ("/plan", lambda: b"[" * (PLAN_MIB * MIB)),
    "29 MB of nested objects": ("/plan", lambda: b'{"a":' * (PLAN_MIB * MIB // 5)),
    "a number of 29 MB": ("/plan", lambda: _plan(more=f', "seed": {"7" * (PLAN_MIB * MIB)}')),
    "a fraction of 29 MB": (
        "/plan",
        lambda: _plan(more=f', "tolerance": 0.{"7" * PLAN_MIB * MIB}'),
    ),
    "a device type of 29 MB": (
        "/plan",
        lambda: _plan(more=f', "device_type": "{"x" * PLAN_MIB * MIB}"'),
    ),
    "29 MB of wrong budgets": (
        "/plan",
        lambda: _plan(_profile(f"[[{_filled(lambda _: chr(34) + 'x' + chr(34))}]]")),
    ),
    "29 MB of budgets": ("/plan", lambda: _plan(_profile(f"[[{_filled(lambda _: '64')}]]"))),
    "29 MB of empty budgets": ("/plan", lambda: _plan(_profile(f"[{_filled(lambda _: '[]')}]"))),
    "29 MB of devices": ("/plan", lambda: _plan(more=f', "devices": [{_filled(lambda _: "{}")}]')),
    "29 MB of escaped text": (
        "/plan",
        lambda: _plan(_profile(f"[[{_filled(lambda _: chr(34) + chr(92) + 'ud83d' + chr(34))}]]")),
    ),
    "16 MB of budgets": (
        "/plan",
        lambda: _plan(_profile(f"[[{_filled(lambda _: '64.0000', FITS)}]]")),
    ),
    "16 MB of empty budgets": (
        "/plan",
        lambda: _plan(_profile(f"[{_filled(lambda _: ' ' * 13 + '[]', FITS)}]")),
    ),
    "16 MB of current plan": (
        "/plan",
        lambda: _plan(more=f', "placement": {{"current_plan": {_current(FITS)}}}'),
    ),
    "16 MB of escaped text": (
        "/plan",
        lambda: _plan(more=', "device_type": "' + "\\ud83d\\ude00" * (FITS // 12) + '"'),
    ),
    "8 MB of samples": ("/measurements", lambda: _batch(_samples(126, 48))),
    "a large model's curves": ("/profiles/large", lambda: _curves().encode()),
    "a large node's round": ("/measurements", lambda: _batch(_samples())),
}


@contextmanager
def _service(folder: Path) -> Iterator[tuple[int, str]]:
    """`hplb serve` on a free port: its process id and URL."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HPLB_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.main", "serve", "--port", "0"],
        env={**environment, "HPLB_DATABASE_URL": f"sqlite:///{folder / 'hplb.db'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+?:\d+", process.stdout.readline())
        assert found, "the service did not start"
        yield process.pid, found[0]
    finally:
        process.kill()
        process.wait()


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        try:
            threads = os.listdir(f"/proc/{parent}/task")
            for thread in threads:
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text()
                found += map(int, children.split())
        except OSError:  # it has ended
            continue
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all that it has started."""
    ticks = 0
    for each in _family(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    kib = 0
    for each in _family(pid):
        try:
            status = Path(f"/proc/{each}/status").read_text()
        except OSError:
            continue
        found = re.search(r"VmRSS:\s*(\d+)", status)
        kib += int(found[1]) if found else 0
    return kib / 1024


class Watch:
    """Asks /healthz and looks at the memory every 10 ms until it is told to stop."""

    def __init__(self, pid: int, url: str) -> None:
        self._pid, self._url = pid, url
        self._over = Event()
        self.worst_ms = self.peak_mb = 0.0
        self._threads = [Thread(target=self._health), Thread(target=self._memory)]
        for thread in self._threads:
            thread.start()

    def _health(self) -> None:
        with httpx.Client(base_url=self._url, timeout=None, trust_env=False) as client:
            while not self._over.wait(0.01):
                started = time.perf_counter()
                try:
                    client.get("/healthz")
                except httpx.RequestError:
                    self.worst_ms = max(self.worst_ms, (time.perf_counter() - started) * 1e3)
                    return
                self.worst_ms = max(self.worst_ms, (time.perf_counter() - started) * 1e3)

    def _memory(self) -> None:
        while not self._over.wait(0.01):
            self.peak_mb = max(self.peak_mb, _resident_mb(self._pid))

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


WARM = _plan(_profile(json.dumps([[64.0] * 128] * 128)), ', "method": "contiguous"')
"""What a service has started after it is not what the next body costs."""


def cost(name: str, limit_s: float) -> Row:
    """One body's row."""
    path, make = BODIES[name]
    body = make()
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as (pid, url):
        headers = {"content-type": "application/json"}
        with httpx.Client(base_url=url, timeout=limit_s, trust_env=False) as client:
            client.post("/plan", content=WARM, headers=headers)
            client.post("/measurements", content=_batch(""), headers=headers)
            before_mb, before_s = _resident_mb(pid), cpu_s(pid)
            idle = Watch(pid, url)
            time.sleep(1)
            idle.end()
            idle_s = cpu_s(pid) - before_s
            before_s = cpu_s(pid)
            watch = Watch(pid, url)
            started = time.perf_counter()
            answered = True
            status: int | str
            said = ""
            try:
                method = "PUT" if path.startswith("/profiles") else "POST"
                answer = client.request(method, path, content=body, headers=headers)
                status, said = answer.status_code, answer.text
            except httpx.TimeoutException:
                status, answered = "none", False
            except httpx.RequestError as error:
                status = type(error).__name__
            wall_s = time.perf_counter() - started
            if answered:
                time.sleep(1)
            # What /healthz itself costs meanwhile is not the body's.
            spent_s = cpu_s(pid) - before_s - (idle_s * (wall_s + 1) if answered else 0)
            if not answered:
                os.kill(pid, 9)
            watch.end()
    return {
        "body": name,
        "route": path,
        "bytes": len(body),
        "status": status,
        "says": said[:200],
        "wall_s": wall_s,
        "cpu_s": max(0.0, spent_s),
        "memory_mb": max(0.0, watch.peak_mb - before_mb),
        "healthz_ms": watch.worst_ms,
        "idle_healthz_ms": idle.worst_ms,
        "answered": answered,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="bodies whose name holds this")
    parser.add_argument("--limit-s", type=float, default=60.0)
    options = report.arguments(parser)
    table = report.table_to(options.json)
    rows = []
    print(
        f"{'body':34} {'bytes':>10} {'status':>8} {'CPU s':>7} {'MB':>7} {'healthz ms':>11}",
        file=table,
    )
    for name in BODIES:
        if options.only and options.only not in name:
            continue
        row = cost(name, options.limit_s)
        more = "" if row["answered"] else ">"
        print(
            f"{name:34} {row['bytes']:10} {row['status']!s:>8} {more}{row['cpu_s']:6.2f} "
            f"{row['memory_mb']:7.0f} {row['healthz_ms']:11.0f}",
            file=table,
            flush=True,
        )
        rows.append(row)
    report.deliver(options.json, aims=AIMS, bodies=rows)


if __name__ == "__main__":
    main()
