"""`import_profile`: a published file of any known kind becomes a model profile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import json_of, read_bytes
from profiles.importers import duo_attention, headkv, minference, moa, redknot, s2, tangram
from profiles.model import ModelProfile
from profiles.public_models import resolve_architecture

Kind = Literal[
    "minference", "moa", "duo-attention", "tangram", "s2", "redknot", "headkv", "retrieval-head"
]
READERS: dict[str, Callable[..., ModelProfile]] = {
    "minference": minference.read,
    "moa": moa.read,
    "duo-attention": duo_attention.read,
    "tangram": tangram.read,
    "s2": s2.read,
    "redknot": redknot.read,
    "headkv": headkv.read,
    "retrieval-head": headkv.read,
}
GATES, SCORES = ("duo-attention",), ("headkv", "retrieval-head")
TAKEN_BY = {
    "threshold": GATES,
    "full_share": GATES,
    "sink_tokens": GATES,
    "recent_tokens": GATES,
    "capacity_tokens": SCORES,
    "beta": SCORES,
    "window_tokens": SCORES,
}
"""Which kinds an option is for."""
ZIP = b"PK\x03\x04"


def import_profile(
    path: str | Path,
    *,
    name: str,
    kind: Kind | None = None,
    model: str | Architecture | None = None,
    config: str | Path | None = None,
    threshold: float | None = None,
    full_share: float | None = None,
    sink_tokens: int | None = None,
    recent_tokens: int | None = None,
    capacity_tokens: int | None = None,
    beta: float | None = None,
    window_tokens: int | None = None,
) -> ModelProfile:
    """A profile called `name` of the published file at `path`.

        profile = import_profile("Meta-Llama-3.1-8B-Instruct.tsv", name="duo", full_share=0.5)
        profile.save("duo.json")

    kind: what published it; unless given, what the file's content says it is:

    - "minference": budgets of MInference's pattern search (arXiv 2407.02490, JSON list);
    - "moa": MoA's elastic rules, alpha + beta * context (arXiv 2406.14909, JSON);
    - "duo-attention": full and streaming heads by DuoAttention's gates (arXiv 2410.10819, TSV);
    - "tangram": tokens TANGRAM kept on each of several requests (arXiv 2606.06302, NPZ);
    - "s2": S2-Attention's strided patterns from their parameters (arXiv 2407.17678, JSON);
    - "redknot": RedKnot's classes, sink and window or the whole context (arXiv 2606.06256, JSON);
    - "headkv", "retrieval-head": scores of retrieval heads, of either project (arXiv 2410.19258 and
      2404.15574, JSON), as budgets by HeadKV's rule.

    model, config: whose heads these are, by a public model's name or its `Architecture`, or by the
    path of its config.json; unless given, as the file's name tells.

    Gates alone take the next four: full are the KV heads with a gate of at least `threshold`, or
    the `full_share` of them with the highest (0.5 for GQA and 0.25 for MHA models without either);
    a streaming head reads the first `sink_tokens` (128) and the last `recent_tokens` (256). Scores
    need what the mean head keeps, `capacity_tokens`, and `beta`: a head keeps the last
    `window_tokens` (32), and of what is left of the capacity 1/beta is shared out by score.

    Raises ProfileError for a file that is not of its kind, is about another model or tells too
    little, UnknownNameError for an unknown model.
    """
    path = Path(path)
    if model is not None and config is not None:
        raise ProfileError("model and config: give one of the two, not both")
    if not path.exists():
        raise ProfileError(f"{path}: there is no such file")
    kind = kind_of(path) if kind is None else kind
    if kind not in READERS:
        raise ProfileError(f"kind: {kind!r} is not one of {', '.join(READERS)}")
    options: dict[str, Any] = {
        "threshold": threshold,
        "full_share": full_share,
        "sink_tokens": sink_tokens,
        "recent_tokens": recent_tokens,
        "capacity_tokens": capacity_tokens,
        "beta": beta,
        "window_tokens": window_tokens,
    }
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if kind not in TAKEN_BY[option]:
            raise ProfileError(f"{option}: is for {' and '.join(TAKEN_BY[option])}, not {kind}")
    architecture = (
        model
        if isinstance(model, Architecture)
        else resolve_architecture(path, model, None if config is None else Path(config))
    )
    return READERS[kind](path, name, architecture, **given)


def kind_of(path: Path) -> Kind:
    """What a file's content says it is; ProfileError where it does not tell.

    An archive is TANGRAM's, a table of tabs DuoAttention's; of JSON a list is MInference's, and an
    object shows MoA's, S2-Attention's or RedKnot's fields, or is of scores by layer and head.
    """
    content = read_bytes(path)
    if content.startswith(ZIP):
        return "tangram"
    if path.suffix.lower() == ".tsv":
        return "duo-attention"
    document = json_of(content, str(path))
    if isinstance(document, list):
        return "minference"
    fields = set(document) if isinstance(document, dict) else set()
    if {"alphas", "betas"} & fields:
        return "moa"
    if {"local_blocks", "vert_stride"} & fields:
        return "s2"
    if redknot.CLASSES in fields or any(field.startswith(redknot.LATENT) for field in fields):
        return "redknot"
    if fields and all(headkv.HEAD.fullmatch(field) for field in fields):
        return "headkv"
    raise ProfileError(f"{path}: does not tell its kind; say which: {', '.join(get_args(Kind))}")
