"""RedKnot's head classes (rednote-machine-learning/RedKnot, `head_class`, arXiv 2606.06256)."""

from pathlib import Path
from typing import Any

import numpy as np

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import read_json
from profiles.importers.sources import build, per_query_head, require_shape
from profiles.model import ModelProfile
from profiles.selection import SinkLocal

CLASSES, DISTANCES, SINKS = "kv_head_classification", "kv_head_max_distance", "kv_head_sink_size"
LATENT = "mla_head_"
"""Fields of models with multi-head latent attention begin with it."""
LOCAL = {"local", "local_full", "limited", "streaming", "sink_dominant"}
WHOLE = {"global", "retrieval", "dense"}
"""`retrieval` heads keep the whole context, whatever they then attend to of it."""
SINK_TOKENS = 4
"""RedKnot's own where a file states none."""


def read(path: Path, name: str, architecture: Architecture) -> ModelProfile:
    """Rules of `kv_head_classification` and `kv_head_max_distance`, each `[layers][kv_heads]`.

    The class decides, not the distance, which is 0, -1 or left over where it means nothing: a local
    head reads a sink and the last `distance` tokens (alpha, beta 0), any other the whole context
    (alpha 0, beta 1), as do all of the first `dense_prefix_layers`. Raises ProfileError, also for
    a model with multi-head latent attention, which has no KV heads.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise ProfileError(f"{path}: must be a JSON object with {CLASSES} and {DISTANCES}")
    latent = next((field for field in document if field.startswith(LATENT)), None)
    if latent is not None:
        raise ProfileError(
            f"{path}: {latent}: classes of a model with multi-head latent attention (MLA), which "
            "has no KV heads as profiles know them"
        )
    classes, distances = _table(path, document, CLASSES), _table(path, document, DISTANCES)
    shape = (len(classes), len(classes[0]))
    if SINKS in document:
        sinks = _table(path, document, SINKS)
    else:
        sinks = [[document.get("sink_size", SINK_TOKENS)] * shape[1]] * shape[0]
    sizes = {
        DISTANCES: (len(distances), len(distances[0])),
        "num_layers and num_kv_heads": (
            document.get("num_layers", shape[0]),
            document.get("num_kv_heads", shape[1]),
        ),
        SINKS: (len(sinks), len(sinks[0])),
    }
    for what, size in sizes.items():
        if size != shape:
            raise ProfileError(
                f"{path}: {what}: {size[0]} x {size[1]}, but {CLASSES} has {shape[0]} x {shape[1]}"
            )
    require_shape(path, shape, architecture, "KV")
    prefix = _tokens(document.get("dense_prefix_layers", 0), f"{path}: dense_prefix_layers")
    spans, largest_sink = np.zeros(shape), 0
    for layer, head in np.ndindex(shape):
        place = f"{path}: layer {layer}, KV head {head}"
        kind = classes[layer][head]
        if kind not in LOCAL | WHOLE:
            known = ", ".join(sorted(LOCAL | WHOLE))
            raise ProfileError(f"{place}: unknown class {kind!r}: known are {known}")
        if kind in LOCAL and layer >= prefix:
            sink = _tokens(sinks[layer][head], f"{place}: sink")
            distance = _tokens(distances[layer][head], f"{place}: the distance of a {kind} head")
            if not distance:
                raise ProfileError(f"{place}: the distance of a {kind} head must be at least 1")
            spans[layer, head], largest_sink = sink + distance, max(largest_sink, sink)
    heads = {
        "form": "rules",
        "alpha_tokens": per_query_head(spans, architecture).tolist(),
        "beta": per_query_head((spans == 0).astype(float), architecture).tolist(),
    }
    local = int((spans > 0).sum())
    source = f"RedKnot head classes ({local} of {spans.size} KV heads local)"
    return build(path, name, architecture, heads, source, SinkLocal(sink_tokens=largest_sink))


def _table(path: Path, document: dict[str, Any], field: str) -> list[list[Any]]:
    """The field's rows of equal length, one for each layer."""
    table = document.get(field)
    if not isinstance(table, list) or not table:
        raise ProfileError(f"{path}: {field} must be a list of rows, one for each layer")
    for layer, row in enumerate(table):
        if not isinstance(row, list) or not row or len(row) != len(table[0]):
            raise ProfileError(
                f"{path}: {field}: layer {layer} must be a row of KV heads, as long as layer 0's"
            )
    return table


def _tokens(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ProfileError(f"{place}: {value!r} is not a number of tokens")
    return value
