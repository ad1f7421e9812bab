"""DuoAttention's learned gates (mit-han-lab/duo-attention, arXiv 2410.10819)."""

import math
from pathlib import Path

import numpy as np

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import read_text
from profiles.importers.sources import Floats, build, per_query_head, require_shape
from profiles.model import ModelProfile

SINK_TOKENS = 128
RECENT_TOKENS = 256
GQA_FULL_SHARE = 0.5
MHA_FULL_SHARE = 0.25


def read(
    path: Path,
    name: str,
    architecture: Architecture,
    *,
    threshold: float | None = None,
    full_share: float | None = None,
    sink_tokens: int = SINK_TOKENS,
    recent_tokens: int = RECENT_TOKENS,
) -> ModelProfile:
    """Rules from a TSV of gates `[layers][kv_heads]`: a KV head is either full or streaming.

    Full are the heads with a gate of at least `threshold`, or the `full_share` of all KV heads
    with the highest gates (without either: 0.5 for GQA and 0.25 for MHA models, as DuoAttention
    deploys them; equal gates go by layer, then head). A full head reads the whole context
    (alpha 0, beta 1), a streaming one sink and recent tokens (alpha, beta 0). Raises ProfileError.
    """
    if threshold is not None and full_share is not None:
        raise ProfileError("threshold and full_share: give one of the two, not both")
    _require_share("threshold", threshold)
    _require_share("full_share", full_share)
    if sink_tokens < 0 or recent_tokens < 1:
        raise ProfileError(
            f"sink {sink_tokens} and recent {recent_tokens}: sink must be at least 0, recent 1"
        )
    gates = np.clip(_gates(path), 0, 1)
    require_shape(path, gates.shape, architecture, "KV")
    if threshold is not None:
        full, rule = gates >= threshold, f"threshold {threshold:g}"
    else:
        if full_share is None:
            full_share = GQA_FULL_SHARE if architecture.group_size > 1 else MHA_FULL_SHARE
        full, rule = _highest(gates, full_share), f"full_share {full_share:g}"
    streaming_tokens = sink_tokens + recent_tokens
    heads = {
        "form": "rules",
        "alpha_tokens": per_query_head(np.where(full, 0, streaming_tokens), architecture).tolist(),
        "beta": per_query_head(full.astype(float), architecture).tolist(),
    }
    what = f"DuoAttention gates ({rule}, sink {sink_tokens}, recent {recent_tokens} tokens)"
    selection = {"kind": "sink_local", "sink_tokens": sink_tokens}
    return build(path, name, architecture, heads, what, selection)


def _require_share(field: str, value: float | None) -> None:
    # A NaN fails the comparison too.
    if value is not None and not 0 <= value <= 1:
        raise ProfileError(f"{field}: must be from 0 to 1, found {value}")


def _highest(gates: Floats, share: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    order = np.argsort(-gates, axis=None, kind="stable")
    full = np.zeros(gates.size, dtype=bool)
    full[order[: round(share * gates.size)]] = True
    return full.reshape(gates.shape)


def _gates(path: Path) -> Floats:
    rows = [line.split("\t") for line in read_text(path).split("\n") if line.strip()]
    if not rows:
        raise ProfileError(f"{path}: is empty: must hold a row of gates for each layer")
    for layer, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ProfileError(
                f"{path}: layer {layer}: {len(row)} gates, but layer 0 has {len(rows[0])}"
            )
    return np.array(
        [
            [_gate(cell, f"{path}: layer {layer}, KV head {head}") for head, cell in enumerate(row)]
            for layer, row in enumerate(rows)
        ]
    )


def _gate(cell: str, place: str) -> float:
    try:
        gate = float(cell)
    except ValueError:
        raise ProfileError(f"{place}: {cell!r} is not a number") from None
    if not math.isfinite(gate):
        raise ProfileError(f"{place}: {cell!r} is not finite")
    return gate
