"""The results file: every score, and all it takes to get the same again."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from executor.evaluation.lines import Line
from executor.evaluation.runner import Evaluated, Options
from profiles.measuring.loading import Loaded
from profiles.model import ModelProfile
from profiles.tasks.documents import digest_at
from profiles.versions import versions

PACKAGES = ("hplb", "torch", "transformers", "tokenizers", "numpy", "scipy")
"""What computes it; the text of the tasks depends on Python's version."""


def belongs_to(loaded: Loaded, options: Options) -> dict[str, object]:
    """What rows must have in common, beside the budgets that each names, to be taken together."""
    return {
        "weights_sha256": loaded.weights_sha256,
        "block_tokens": options.block_tokens,
        "piece_tokens": options.piece_tokens,
        "dtype": loaded.dtype,
        "text_sha256": None if options.text is None else digest_at(options.text),
        "versions": versions(*PACKAGES),
    }


def report(
    name: str,
    loaded: Loaded,
    profile: ModelProfile,
    options: Options,
    evaluated: Sequence[Evaluated],
    lines: Sequence[Line],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything as JSON: `lines` are the table, `rows` what it was made from."""
    asked = asdict(options)
    asked["selection"] = options.selection.model_dump()
    asked["text"] = None if options.text is None else str(options.text)
    return {
        "command": shlex.join(sys.argv),
        "model": name,
        "profile": {"name": profile.name, "digest": profile.digest},
        **belongs_to(loaded, options),
        "options": asked,
        "seeds": [options.seeds.start, options.seeds.stop],
        "notes": list(notes),
        "lines": [asdict(line) for line in lines],
        "methods": [
            {
                "context": each.setting.context_tokens,
                "method": method.name,
                "density": method.density,
                "setup": method.setup,
                "knob": method.knob,
                "selection": method.selection.model_dump(),
                "tokens": method.tokens.tolist(),
                "predicted_makespan_s": each.makespan_s[method.name, method.density],
            }
            for each in evaluated
            for method in each.methods
        ],
        "generated": [
            {"context": each.setting.context_tokens, **asdict(found)}
            for each in evaluated
            for found in each.generated
        ],
        "rows": [asdict(row) for each in evaluated for row in each.rows],
    }
