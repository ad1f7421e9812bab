"""A model's folder of safetensors: read and written tensor by tensor, whatever its size.

The library's writer takes all of a file's tensors at once, and a file may be the whole model; so
the header (https://github.com/huggingface/safetensors#format) is written here, and then the bytes.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from executor.errors import WeightsError
from profiles.files import read_bytes, read_json
from profiles.time_left import Show

CONFIG, INDEX, ONE_FILE = "config.json", "model.safetensors.index.json", "model.safetensors"
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
"""A folder's other copies of its weights, which stay as they were: not taken along."""
RECORD = "hplb.json"
"""What `hplb models get` keeps of the weights it wrote: not true of others."""
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Change:
    """What becomes of a tensor, and the shape it then has."""

    shape: tuple[int, ...]
    of: Callable[[torch.Tensor], torch.Tensor]

    def then(self, other: "Change") -> "Change":
        """Both, one after the other."""
        return Change(other.shape, lambda before: other.of(self.of(before)))


@dataclass(frozen=True)
class Rows:
    """Stretches of a tensor along `axis`, `width` long, by where they begin; None is zeros."""

    axis: int
    width: int
    starts: tuple[int | None, ...]


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint: where it is, safetensors' name of its type, its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A folder's tensors by name, file after file in the order they lie in."""

    folder: Path
    tensors: Mapping[str, Stored]

    @property
    def files(self) -> list[Path]:
        """The files that they are in."""
        return list(dict.fromkeys(stored.file for stored in self.tensors.values()))

    def texts(self) -> dict[str, str]:
        """The configuration and the index, as they are, by their files' names."""
        return {
            name: read_bytes(self.folder / name).decode()
            for name in (CONFIG, INDEX)
            if (self.folder / name).is_file()
        }


def open_checkpoint(folder: Path) -> Checkpoint:
    """The headers of a model's weights. Raises WeightsError for what is missing or broken."""
    if (folder / ADAPTER).exists():
        raise WeightsError(
            f"{folder / ADAPTER}: LoRA adapters are not permuted: merge this one into its model "
            "(peft's merge_and_unload) first"
        )
    placed = _index(folder)
    found: dict[str, Stored] = {}
    for name in [ONE_FILE] if placed is None else sorted(set(placed.values())):
        file = folder / name
        with _opened(file) as reader:
            for tensor in reader.offset_keys():
                part = reader.get_slice(tensor)
                found[tensor] = Stored(file, part.get_dtype(), tuple(part.get_shape()))
    for tensor, name in (placed or {}).items():
        if tensor not in found or found[tensor].file.name != name:
            raise WeightsError(f"{folder / name}: has no {tensor}, which {INDEX} says it has")
    return Checkpoint(folder, found)


class Part:
    """Rows of a tensor in a file, read when they are asked for, and nothing else of it.

    To transformers, which asks for `part[...]`, it is as a slice of safetensors.
    """

    def __init__(self, stored: Any, rows: Rows) -> None:
        self._stored, self._rows = stored, rows

    def get_shape(self) -> list[int]:
        shape = list(self._stored.get_shape())
        shape[self._rows.axis] = self._rows.width * len(self._rows.starts)
        return shape

    def get_dtype(self) -> str:
        dtype: str = self._stored.get_dtype()
        return dtype

    def __getitem__(self, everything: EllipsisType) -> torch.Tensor:
        axis, width = self._rows.axis, self._rows.width

        def read(begin: int, end: int) -> torch.Tensor:
            found: torch.Tensor = self._stored[(*(slice(None),) * axis, slice(begin, end))]
            return found

        shape = self.get_shape()
        shape[axis] = width
        zeros = read(0, 0).new_zeros(shape)
        starts = self._rows.starts
        return torch.cat([zeros if at is None else read(at, at + width) for at in starts], axis)


@contextmanager
def parts(source: Checkpoint, rows: Mapping[str, Rows]) -> Iterator[dict[str, Any]]:
    """Slices of all tensors by name, of some only `rows`: read one by one when asked for, in here.

    Raises WeightsError for a file that cannot be opened.
    """
    with ExitStack() as opened:
        found: dict[str, Any] = {}
        for file in source.files:
            reader = opened.enter_context(_opened(file))
            found |= {name: reader.get_slice(name) for name in reader.offset_keys()}
        yield {
            name: Part(stored, rows[name]) if name in rows else stored
            for name, stored in found.items()
        }


def rewrite(
    source: Checkpoint,
    folder: Path,
    changes: Mapping[str, Change],
    original: Mapping[str, Change],
    progress: Show,
) -> str:
    """Write all files and the index anew to `folder`, tensor by tensor, some of them changed.

    The checksum of all tensors of the model, which those that are read become by `original`. Files
    that the library wrote, changed and changed back, are what they were, byte for byte.
    """
    checksum, elements, size = _Checksum(), 0, 0
    files = source.files
    for number, file in enumerate(files):
        progress(number, len(files), f"writing {file.name}")
        with _opened(file) as reader, (folder / file.name).open("wb") as out:
            names = reader.offset_keys()
            out.write(_header(source, names, changes, reader))
            for name in names:
                kept = reader.get_tensor(name)
                made = _changed(name, kept, changes)
                # What is changed back is not changed back twice.
                models = made if original is changes else _changed(name, kept, original)
                checksum.add(name, models)
                out.write(_bytes_of(made))
                elements, size = elements + made.numel(), size + made.nbytes
            out.flush()
            os.fsync(out.fileno())
    progress(len(files), len(files), "written")
    text = source.texts().get(INDEX)
    if text is not None:
        index = json.loads(text)
        totals = {"total_size": size, "total_parameters": elements}
        index.setdefault("metadata", {})
        index["metadata"] |= {k: v for k, v in totals.items() if k in index["metadata"]}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return checksum.hexdigest()


def _changed(name: str, tensor: torch.Tensor, changes: Mapping[str, Change]) -> torch.Tensor:
    return changes[name].of(tensor) if name in changes else tensor


def copy_others(source: Path, folder: Path) -> None:
    """Copy the files that go with the weights: tokenizer, generation's defaults, licence.

    Not the folder's other copies of its weights, nor what is told of them.
    """
    for file in sorted(source.iterdir()):
        other = file.name.endswith(OTHER_WEIGHTS) or file.name in (RECORD, INDEX)
        if file.is_file() and not other:
            shutil.copyfile(file, folder / file.name)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name once the block ends well.

    Else it is gone. Raises WeightsError for a path that is taken or cannot be written to.
    """
    path = path.absolute()
    if path.exists():
        raise WeightsError(f"{path}: is there already; name a new folder")
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            yield temporary
            temporary.chmod(0o755)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror}") from None


class _Checksum:
    """One digest of tensors' names, types, shapes and bytes, in whatever order they come."""

    def __init__(self) -> None:
        self._found: dict[str, bytes] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        digest = hashlib.sha256(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(_bytes_of(tensor))
        self._found[name] = digest.digest()

    def hexdigest(self) -> str:
        return hashlib.sha256(
            b"".join(self._found[name] for name in sorted(self._found))
        ).hexdigest()


def _header(
    source: Checkpoint, names: list[str], changes: Mapping[str, Change], reader: Any
) -> bytes:
    """What a file of safetensors begins with: the length of a JSON object, and that."""
    metadata = reader.metadata()
    fields: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    begin = 0
    for name in names:
        stored = source.tensors[name]
        # Mapped, not read.
        size = reader.get_tensor(name).nbytes
        shape = stored.shape
        if name in changes:
            shape = changes[name].shape
            size = size // math.prod(stored.shape) * math.prod(shape)
        fields[name] = {
            "dtype": stored.dtype,
            "shape": shape,
            "data_offsets": [begin, begin + size],
        }
        begin += size
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _index(folder: Path) -> dict[str, str] | None:
    """The file of every tensor, where the weights are in several."""
    path = folder / INDEX
    if not path.exists():
        return None
    index = read_json(path)
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict) or not placed:
        raise WeightsError(f"{path}: has no weight_map")
    for tensor, name in placed.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{path}: weight_map.{tensor}: {name!r} is no file's name")
    return placed


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file's reader of the library."""
    try:
        reader: Any = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors: {error}") from None
    with reader:
        yield reader
