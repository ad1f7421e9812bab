"""Real published files and small failing inputs, kept beside the project and not in it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "../shared"
HEADS = SHARED / "data/heads"
OF_KIND = {
    "minference": "Qwen2.5_7B_Instruct_128k_instruct_kv_out_v32_fit_o_best_pattern.json",
    "moa": "lmsys--vicuna-7b-v1.5-16k.json",
    "duo-attention": "Meta-Llama-3.1-8B-Instruct.tsv",
    "tangram": "snapkv__qwen3-4b-instruct-2507__profile_perlayer.npz",
}
"""A file of each kind, in the folder of that name."""


def published(*parts: str) -> Path:
    """The file `heads/<parts>`; skips the test where it is absent."""
    return _there(HEADS.joinpath(*parts))


def case(file: str) -> Path:
    """The small input `cases/<file>` that once failed; skips the test where it is absent."""
    return _there(SHARED / "cases" / file)


def _there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path
