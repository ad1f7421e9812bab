"""What the C++ sources beside this do, compiled once a machine where there is a compiler.

Not by PyTorch's own loader of extensions: it wants ninja, reads headers that are not needed here,
and waits for ever for a lock whose owner was killed.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import Layout

SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("shared.h", "decode.cpp", "sampled.cpp")
)
# Not -ffast-math: NaN and infinity must come out as such.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-w"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
COMPILE_S = 60.0
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The source's numbers of dtypes."""
LEAST_BYTES = 2**20
"""To read so many takes longer than to wake a thread for them."""

_DONE, _NOT_THERE = 0, 2
"""Of the source's `Result`; the others leave it to PyTorch."""
_At, _Size = ctypes.c_void_p, ctypes.c_int64


class _Cache(ctypes.Structure):
    """The source's `Cache`, member after member."""

    _fields_ = (
        *((name, _At) for name in ("keys", "values", "pages")),
        *((name, _Size) for name in ("pages_stored", "page_tokens")),
        *((f"table_{of}", _Size) for of in ("pages", "sequence", "page")),
        *((f"{x}_{of}", _Size) for x in ("key", "value") for of in ("page", "group", "token")),
    )


class _Layout(ctypes.Structure):
    """The source's `Layout`."""

    _fields_ = (
        *((name, _At) for name in ("entries", "heads", "start")),
        *((name, _Size) for name in ("lists", "widest", "piece_tokens")),
    )


class _Rows(ctypes.Structure):
    """The source's `Rows`."""

    _fields_ = (("data", _At), ("head", _Size), ("token", _Size))


class _Threads(ctypes.Structure):
    """The source's `Threads`."""

    _fields_ = (("most", _Size), ("least_bytes", _Size))


class _Prompt(ctypes.Structure):
    """The source's `Prompt`."""

    _fields_ = (
        *((name, _At) for name in ("entries", "entry", "query_block", "length", "start")),
        *((name, _Size) for name in ("first", "end", "block_tokens", "piece_tokens", "rows")),
        ("keys", _At),
        *((name, _Size) for name in ("key_token", "tokens", "dim")),
    )


_TABLES = (ctypes.POINTER(_Cache), ctypes.POINTER(_Layout))
_ARGUMENTS = {
    "hplb_decode": (_Size, *_TABLES, _Size, _Threads, _Rows, _At, _At, _At, _At, _Rows, _Rows),
    "hplb_select_decode": (
        *(_Size, *_TABLES, _Size, _Threads, _Rows, _At, _At, _Size, _At),
        *(_At, _Size, _Size, _Size, _At),
    ),
    "hplb_select_sampled": (_Size, ctypes.POINTER(_Prompt), _Rows, _Size, _At),
}


def attend(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    lists: DecodeLists,
    context_tokens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> bool:
    """As `decode.decode_attention`; or False, and nothing is written, where nothing is compiled and
    for dtypes and strides that the source does not know."""
    code, kind = library(), _kind(q, cache.keys, cache.values, out)
    if code is None or kind is None:
        return False
    indices = lists.indices.long()
    result = code.hplb_decode(
        *_asked(kind, q, cache, layout),
        lists.first.data_ptr(),
        lists.count.data_ptr(),
        indices.data_ptr(),
        context_tokens.data_ptr(),
        _rows(out),
        _Rows() if lse is None else _rows(lse),
    )
    return _done(result)


def choose(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    entries: torch.Tensor,
    context_tokens: torch.Tensor,
    indices: torch.Tensor,
) -> bool:
    """Write the lists of `entries` int32, which choose some pieces by the bounds, to `indices`
    int64 [stored]; or False, as `attend`. Of equal scores the first pieces are taken."""
    code, kind = library(), _kind(q, bounds)
    if code is None or kind is None:
        return False
    result = code.hplb_select_decode(
        *_asked(kind, q, cache, layout),
        layout.budget.data_ptr(),
        entries.data_ptr(),
        len(entries),
        context_tokens.data_ptr(),
        bounds.data_ptr(),
        *bounds.stride()[:3],
        indices.data_ptr(),
    )
    return _done(result)


def choose_sampled(
    q: torch.Tensor,
    keys: torch.Tensor,
    layout: Layout,
    lists: range,
    rows: int,
    indices: torch.Tensor,
) -> bool:
    """Write to `indices` int32 [stored] the stored ones of `lists`, all of heads that read `keys`
    [tokens, head_dim], by so many sampled rows of q [heads, tokens, head_dim] a query block; or
    False, as `attend`, and where scores are so great or small that powers of them are lost."""
    code, kind = library(), _kind(q, keys)
    if code is None or kind is None:
        return False
    tables = layout.entries, layout.entry, layout.query_block, layout.length, layout.start
    prompt = _Prompt(
        *(x.data_ptr() for x in tables),
        *(lists.start, lists.stop, layout.block_tokens, layout.piece_tokens, rows),
        *(keys.data_ptr(), keys.stride(0), *keys.shape),
    )
    at = indices.data_ptr()
    return _done(code.hplb_select_sampled(kind, prompt, _rows(q), torch.get_num_threads(), at))


def _done(result: int) -> bool:
    """By the source's `Result`. Raises IndexError."""
    if result == _NOT_THERE:
        raise IndexError("pages: a list names a piece that its sequence or the cache has not")
    return result == _DONE


def _kind(q: torch.Tensor, *others: torch.Tensor) -> int | None:
    """Of tensors that are all alike, with their rows' numbers side by side."""
    for x in others:
        if x.dtype != q.dtype or x.stride(-1) != 1:
            return None
    return KINDS.get(q.dtype) if q.stride(2) == 1 else None


def _asked(kind: int, q: torch.Tensor, cache: Cache, layout: DecodeLayout) -> tuple[object, ...]:
    """What is told of any decode."""
    threads = _Threads(torch.get_num_threads(), LEAST_BYTES)
    return kind, _cache(cache), layout.derive(_layout), q.shape[2], threads, _rows(q)


def _rows(x: torch.Tensor) -> _Rows:
    return _Rows(x.data_ptr(), x.stride(0), x.stride(1))


def _cache(cache: Cache) -> _Cache:
    found: _Cache | None = cache.derived.get("compiled")
    if found is None:
        keys, values, pages = cache.keys, cache.values, cache.pages
        assert pages is not None
        found = cache.derived["compiled"] = _Cache(
            *(x.data_ptr() for x in (keys, values, pages)),
            *(len(keys), cache.page_tokens),
            *(pages.shape[1], *pages.stride()),
            *(*keys.stride()[:3], *values.stride()[:3]),
        )
    return found


def _layout(layout: DecodeLayout) -> _Layout:
    tables = layout.entries, layout.heads, layout.start
    sizes = len(layout.lists), layout.heads.shape[1], layout.piece_tokens
    return _Layout(*(x.data_ptr() for x in tables), *sizes)


@cache
def library() -> ctypes.CDLL | None:
    """The sources, compiled now or on another day; None where they cannot be, which is said once,
    or where HPLB_COMPILE=0."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None or os.environ.get("HPLB_COMPILE") == "0":
        return None
    try:
        found = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            f"{compiler} does not compile {SOURCES[1].parent}, so that a CPU decodes and chooses "
            f"keys by PyTorch's operations, which take longer: {why.strip()}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(found, name).argtypes = arguments
    return found


def _compiled(compiler: str) -> Path:
    """Where the library is. Raises OSError or SubprocessError."""
    texts = (source.read_text() for source in SOURCES)
    parts = *texts, " ".join(FLAGS), compiler, platform.machine(), _features()
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    folder = _folder()
    path = folder / f"{name}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as room:
            made = Path(room) / path.name
            code = [str(source) for source in SOURCES if source.suffix == ".cpp"]
            command = [compiler, *FLAGS, *code, "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_S)
            # Whole or not there, whoever else compiles it.
            made.replace(path)
    return path


def _folder() -> Path:
    """In the folder that `profiles.fetched.cache_folder` names, which kernels do not import."""
    own = os.environ.get("HPLB_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(shared) / "hplb").absolute() / "kernels"


def _features() -> str:
    """What the processor can do, where the system tells: unlike machines may share a home."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
