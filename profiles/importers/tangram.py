"""TANGRAM's measured retention (aiha-lab/TANGRAM, `cluster_maps`, arXiv 2606.06302)."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import json_of
from profiles.importers.sources import build, per_query_head, require_shape
from profiles.model import ModelProfile

CONTEXT, SINK, CONTEXT_AND_SINK, WINDOW = range(4)
"""Columns of `sample_meta`, in tokens."""

AXES = {"raw_kept": 4, "raw_ratio": 4, "sample_meta": 2, "meta": 1, "static_layer_ids": 1}
"""The arrays read, with their number of axes."""
OPTIONAL = "static_layer_ids"
"""Older files have samples of every layer and say no more."""

BROKEN = (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise on a cut-off, corrupt, encrypted or pickled archive."""


def read(path: Path, name: str, architecture: Architecture) -> ModelProfile:
    """Samples of an NPZ with `raw_kept` `[1, requests, layers, kv_heads]` tokens.

    Kept tokens include the sink and the window, so a request's context is context + sink; its
    task comes from the order and counts of `dataset_mix`. Of a hybrid model the layers are those
    of full attention, as `static_layer_ids` says; the others keep their windows, which the file
    does not know: the architecture does. Under `tensor_parallel_size` the heads are one rank's and
    stand for those of every rank, in order. Raises ProfileError, also where `raw_kept` is not
    `raw_ratio` * context + sink + window.
    """
    arrays = _arrays(path)
    kept, ratio, requests = arrays["raw_kept"], arrays["raw_ratio"], arrays["sample_meta"]
    if kept.shape != ratio.shape or kept.shape[:2] != (1, len(requests)) or requests.shape[1] != 4:
        raise ProfileError(
            f"{path}: raw_kept {kept.shape}, raw_ratio {ratio.shape} and sample_meta "
            f"{requests.shape} must be [1, requests, layers, kv_heads] twice and [requests, 4]"
        )
    meta = _meta(path, arrays["meta"])
    ranks, sampled = _ranks(path, meta), kept.shape[2]
    found = _layers(path, arrays.get(OPTIONAL), sampled, architecture)
    layers = architecture.layers if len(found) == sampled else sampled
    require_shape(path, (layers, kept.shape[3] * ranks), architecture, "KV")
    kept, column = kept[0].astype(float), requests.astype(float).T[:, :, None, None]
    # Written so that a NaN counts as a difference.
    agrees = np.abs(kept - ratio[0] * column[CONTEXT] - column[SINK] - column[WINDOW]) <= 1
    if not agrees.all():
        request, layer, head = np.argwhere(~agrees)[0]
        raise ProfileError(
            f"{path}: request {request}, layer {layer}, KV head {head}: raw_kept "
            f"{kept[request, layer, head]:g} is not raw_ratio * context + sink + window"
        )
    contexts = requests[:, CONTEXT_AND_SINK].tolist()
    every = np.empty((len(kept), architecture.layers, architecture.kv_heads))
    every[:] = np.array([architecture.reaches(context) for context in contexts])[..., None]
    every[:, found] = np.tile(kept, ranks)
    heads = {
        "form": "samples",
        "context_tokens": contexts,
        "task": _tasks(path, meta, len(requests)),
        "kept_tokens": per_query_head(every, architecture).tolist(),
        "fixed_tokens": (requests[:, SINK] + requests[:, WINDOW]).tolist(),
    }
    others = architecture.layers - sampled
    windows = f"; {others} layers keep windows" if others else ""
    what = (
        f"TANGRAM retention of {meta.get('model_name')} (scorer {meta.get('scorer')}, "
        f"{meta.get('level')}, {meta['dataset_mix']}), per KV head{windows}"
    )
    return build(path, name, architecture, heads, what)


def _ranks(path: Path, meta: dict[str, Any]) -> int:
    ranks = meta.get("tensor_parallel_size", 1)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ProfileError(
            f"{path}: meta: tensor_parallel_size must be a positive whole number, found {ranks!r}"
        )
    return ranks


def _layers(
    path: Path, listed: NDArray[Any] | None, sampled: int, architecture: Architecture
) -> list[int]:
    """The layers that the samples are of, ascending: as the file lists them, or all.

    The layers with windows may be listed in their place: which of the two is meant, the
    architecture says.
    """
    every = list(range(architecture.layers))
    if listed is None or sampled >= len(every):
        return every
    ids = listed.tolist()
    if ids != sorted(set(ids)) or not set(ids) <= set(every):
        raise ProfileError(
            f"{path}: static_layer_ids must rise, within the model's {len(every)} layers; is it "
            "another model's file?"
        )
    if sampled not in (len(ids), len(every) - len(ids)):
        raise ProfileError(
            f"{path}: samples of {sampled} layers, but static_layer_ids lists {len(ids)} of "
            f"{len(every)}"
        )
    if not architecture.windows:
        raise ProfileError(
            f"{path}: samples of {sampled} of {len(every)} layers: the others have windows, which "
            "the file does not state; give a config.json with layer_types and sliding_window "
            "(--config)"
        )
    full = [layer for layer in every if architecture.windows[layer] is None]
    sliding = [layer for layer in every if layer not in full]
    if len(full) != sampled or ids not in (full, sliding):
        raise ProfileError(
            f"{path}: static_layer_ids {ids} are not the layers of full attention of the model, "
            f"{full}; is it another model's file?"
        )
    return full


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ProfileError(f"{path}: is a single array, not an NPZ archive")
        with archive:
            missing = [field for field in AXES if field not in archive and field != OPTIONAL]
            if missing:
                raise ProfileError(f"{path}: {', '.join(missing)} is missing")
            arrays = {field: archive[field] for field in AXES if field in archive}
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except BROKEN as error:
        raise ProfileError(f"{path}: not a plain NPZ archive: {error}") from None
    for field, array in arrays.items():
        if array.ndim != AXES[field] or array.dtype.kind not in "iuf":
            raise ProfileError(
                f"{path}: {field} must be numbers in {AXES[field]} axes, found {array.dtype} "
                f"of shape {array.shape}"
            )
    return arrays


def _meta(path: Path, raw: NDArray[Any]) -> dict[str, Any]:
    meta = json_of(raw.astype(np.uint8).tobytes(), f"{path}: meta")
    if not isinstance(meta, dict) or not isinstance(meta.get("dataset_mix"), str):
        raise ProfileError(f"{path}: meta must be an object with a dataset_mix")
    return meta


def _tasks(path: Path, meta: dict[str, Any], requests: int) -> list[str]:
    mix = meta["dataset_mix"]
    parts = [part.rpartition(":") for part in mix.split(",")]
    if not all(task and count.isdecimal() for task, _, count in parts):
        raise ProfileError(f"{path}: meta: dataset_mix {mix!r} must read 'task:count,task:count'")
    if sum(int(count) for _, _, count in parts) != requests:
        raise ProfileError(
            f"{path}: meta: dataset_mix {mix!r} does not add up to {requests} requests"
        )
    return [task for task, _, count in parts for _ in range(int(count))]
