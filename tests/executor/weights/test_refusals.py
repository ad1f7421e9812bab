"""What cannot be permuted is refused by name, and whatever goes wrong leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Olmo2Config, Olmo2ForCausalLM

from executor.errors import WeightsError
from executor.weights import apply as weights
from executor.weights.checkpoint import INDEX, Change
from executor.weights.execution_map import MAP_FILE
from profiles.errors import HplbError
from tests.executor.plans import whole
from tests.executor.weights.models import COMMON, DIVIDED, SHAPE, WHOLE, planned, save
from tests.executor.weights.test_families import quiet

FIRST = "model.layers.0.self_attn"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save("llama", tmp_path / "model")


def held(folder: Path) -> dict[Path, tuple[int, int]]:
    """Everything in a folder, with what would change if it were written to."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def refused(model: Path, words: str, **changes: Any) -> None:
    """Applying to the model fails with these words and leaves the folder as it was."""
    asked = {"plan": planned(WHOLE, slots=2), "check": False, **changes}
    before = held(model.parent)
    with pytest.raises(HplbError, match=words):
        weights.apply(model, asked["plan"], model.parent / "out", asked["check"], quiet)
    assert held(model.parent) == before


def configure(model: Path, **changes: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change(model: Path, name: str, by: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Another tensor in the place of one, or none."""
    index = json.loads((model / INDEX).read_text())
    file = model / index["weight_map"][name]
    tensors = load_file(file)
    made = by(tensors.pop(name))
    if made is None:
        del index["weight_map"][name]
        (model / INDEX).write_text(json.dumps(index))
    else:
        tensors[name] = made
    save_file(tensors, file, {"format": "pt"})


def add(model: Path, name: str, tensor: torch.Tensor) -> None:
    index = json.loads((model / INDEX).read_text())
    index["weight_map"][name] = "more.safetensors"
    (model / INDEX).write_text(json.dumps(index))
    save_file({name: tensor}, model / "more.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("kv_a_proj_with_mqa.weight", "multi-head latent attention"),
        ("q_proj.lora_A.default.weight", "LoRA adapters are not permuted"),
        ("q_proj.qweight", "AWQ or GPTQ: quantised attention is not permuted"),
        ("q_proj.weight_scale_inv", "quantised attention is not permuted"),
        ("q_proj.weight.absmax", "quantised attention is not permuted"),
        ("query_key_value.weight", "a fused layout that is not known here"),
        ("gate.weight", "is not known here: does it go by heads"),
        ("q_norm.weight", "norms over all heads at once .96 numbers, a head has 16"),
    ],
)
def test_a_tensor_that_does_not_go_by_heads_is_refused_by_name(
    model: Path, part: str, words: str
) -> None:
    add(model, f"{FIRST}.{part}", torch.zeros(96))
    refused(model, f"{FIRST}.{part}: {words}")


def test_quantised_attention_is_refused_by_name(model: Path) -> None:
    change(model, f"{FIRST}.q_proj.weight", lambda tensor: tensor.to(torch.float8_e4m3fn))
    refused(model, "q_proj.weight: is of F8_E4M3: quantised attention is not permuted")


def test_norms_over_the_whole_query_are_refused_by_name(tmp_path: Path) -> None:
    Olmo2ForCausalLM(Olmo2Config(**COMMON)).save_pretrained(tmp_path / "model")
    refused(tmp_path / "model", "_norm.weight: norms over all heads at once")


def test_an_unknown_family_is_refused_by_name(model: Path) -> None:
    configure(model, model_type="stablelm")
    refused(model, "model_type 'stablelm': whether its heads may be permuted is not known; known")


def test_mla_is_refused_by_name(model: Path) -> None:
    configure(model, kv_lora_rank=64)
    refused(model, "multi-head latent attention")


def test_an_adapter_is_refused_by_name(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    refused(model, "LoRA adapters are not permuted: merge")


@pytest.mark.parametrize("where", ["model.layers.2", "mtp.layers.0"])
def test_attention_for_speculative_decoding_is_refused_by_name(model: Path, where: str) -> None:
    add(model, f"{where}.self_attn.q_proj.weight", torch.zeros(96, 96))
    refused(model, rf"{where}.*speculative decoding")


def test_a_truncated_file_is_refused(model: Path) -> None:
    file = sorted(model.glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:-100])
    refused(model, f"{file.name}: cannot be read as safetensors")


def test_a_missing_file_is_refused(model: Path) -> None:
    file = sorted(model.glob("*.safetensors"))[-1]
    file.unlink()
    refused(model, f"{file.name}: cannot be read as safetensors")


def test_a_missing_tensor_is_refused(model: Path) -> None:
    change(model, f"{FIRST}.k_proj.weight", lambda _: None)
    refused(model, "layer 0 has no k_proj.weight")


def test_a_tensor_of_another_shape_is_refused(model: Path) -> None:
    change(model, f"{FIRST}.o_proj.weight", lambda tensor: tensor[:, :80].contiguous())
    refused(model, r"o_proj.weight: has the shape \[96, 80\], but .* must have \[96, 96\]")


def test_an_index_that_lies_is_refused(model: Path) -> None:
    index = json.loads((model / INDEX).read_text())
    index["weight_map"]["model.layers.0.self_attn.more"] = next(iter(index["weight_map"].values()))
    (model / INDEX).write_text(json.dumps(index))
    refused(model, "has no model.layers.0.self_attn.more")


def test_a_plan_of_another_model_is_refused(model: Path) -> None:
    other = SHAPE.model_copy(update={"head_dim": 32})
    refused(
        model,
        "plan: is for head_dim 32, but the model has 16",
        plan=planned(WHOLE, slots=2, shape=other),
    )


def test_a_plan_is_not_taken_for_another_ones_place_where_the_weights_are_not_its(
    model: Path,
) -> None:
    first = model.parent / "first"
    weights.apply(model, planned(DIVIDED, slots=2), first, False, quiet)
    change(first, f"{FIRST}.q_proj.weight", lambda tensor: tensor + 1)
    refused(first, "its tensors are not those that the plan was written into")
    (first / MAP_FILE).write_text("{}")
    refused(first, f"{MAP_FILE}: ")


def test_a_folder_that_is_there_is_left_alone(model: Path) -> None:
    (model.parent / "out").mkdir()
    refused(model, "out: is there already")


def test_what_breaks_while_it_is_written_leaves_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(model.parent.iterdir())
    for step, plan in (("rewrite", WHOLE), ("compare", DIVIDED)):
        made = planned(plan, slots=2)
        with monkeypatch.context() as patch:
            patch.setattr(weights, step, stopped)
            with pytest.raises(KeyboardInterrupt):
                weights.apply(model, made, model.parent / "out", True, quiet)
    assert set(model.parent.iterdir()) == before


def test_a_check_that_fails_leaves_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed, name = weights.placed, f"{FIRST}.o_proj.weight"

    def shifted(*given: Any) -> dict[str, Change]:
        found = placed(*given)
        of = found[name].of
        return {**found, name: Change(found[name].shape, lambda tensor: of(tensor).roll(16, 1))}

    monkeypatch.setattr(weights, "placed", shifted)
    refused(model, "--check: the largest difference of logits is", check=True)


def test_heads_that_do_not_divide_the_hidden_size_make_a_llama_a_mistral(model: Path) -> None:
    plan = planned([whole(0, 0, 1, 1, 2, 2)] * 2, slots=3, devices=3)
    out = model.parent / "out"
    assert weights.apply(model, plan, out, True, quiet).compared is not None
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_attention_heads"]) == ("mistral", 18)
    weights.undo(out, model.parent / "back", quiet)
    back = model.parent / "back" / "config.json"
    assert back.read_bytes() == (model / "config.json").read_bytes()


def test_heads_that_do_not_divide_a_hidden_size_with_biases_are_refused(model: Path) -> None:
    configure(model, attention_bias=True)
    plan = planned([whole(0, 0, 1, 1, 2, 2)] * 2, slots=3, devices=3)
    refused(model, "18 query slots on all ranks; .* plan with other --slots", plan=plan)


def test_undone_only_what_was_done(model: Path) -> None:
    out, back = model.parent / "out", model.parent / "back"
    with pytest.raises(WeightsError, match=f"has no {MAP_FILE}"):
        weights.undo(model, back, quiet)
    weights.apply(model, planned(WHOLE, slots=2), out, False, quiet)
    change(out, f"{FIRST}.v_proj.weight", lambda tensor: tensor + 1)
    with pytest.raises(WeightsError, match="its tensors are not those that the plan was written"):
        weights.undo(out, back, quiet)
    (out / MAP_FILE).write_text((out / MAP_FILE).read_text().replace('"group":2', '"group":1', 1))
    with pytest.raises(WeightsError, match=f"{MAP_FILE}: "):
        weights.undo(out, back, quiet)
    assert not back.exists()
