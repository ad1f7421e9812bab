"""Memory grows with the tokens, not with their square."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from executor.attention.select import select_for_budgets
from profiles.measuring import layer_attention
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item
from profiles.measuring.loading import load
from profiles.measuring.prompt_run import PromptRun

from . import tiny


class Largest(TorchDispatchMode):
    """The most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
@pytest.mark.parametrize("gradients", [False, True], ids=["curves", "gradients"])
def test_no_tensor_holds_a_whole_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, gradients: bool
) -> None:
    tokens = 1024
    monkeypatch.setattr(layer_attention, "SCORES_AT_ONCE", 2**16)
    folder = tiny.model(tmp_path / family, family)
    choices = Choices(
        str(folder), tmp_path, (tokens,), block_tokens=16, rows=16, gradients=gradients
    )
    run = PromptRun(load(choices), choices, {tokens: choices.budgets()[0]}, select_for_budgets)
    text = np.random.default_rng(0).integers(4, 64, tokens)
    with Largest() as largest:
        run.measure(Item(0, "text", tokens, tuple(text.tolist()), (900, 1000)))
    assert tokens * tokens // 2 > largest.elements >= tokens * 32


SCRIPT = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from profiles.measuring.choices import Choices
from profiles.measuring.run import measure_profile
from profiles.measuring.parts import Parts
from profiles.measuring.selector import installed_selector
folder, tokens = Path(sys.argv[1]), int(sys.argv[2])
choices = Choices(str(folder / "llama"), folder / "data.jsonl", (tokens,), rows=16)
profile = measure_profile(choices, "long", Parts(folder / "state"), installed_selector(),
                          lambda *_: None)
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  profile.measurement.seconds, profile.heads.selected_recovery is not None]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_32k_tokens_stay_under_4_gb(tmp_path: Path) -> None:
    tokens = 32_768
    tiny.model(
        tmp_path / "llama",
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=tokens,
    )
    tiny.prompts(tmp_path / "data.jsonl", {"text": [tokens]})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(tokens)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    peak, seconds, selected = json.loads(done.stdout.splitlines()[-1])
    assert selected
    assert peak < 4 * 2**30, f"{peak / 2**30:.2f} GiB in {seconds:.0f} s"
