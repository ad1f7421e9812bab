"""What a budget does to heads' outputs: against the definition on eager attention's maps."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from executor.attention.select import select_for_budgets
from profiles.heads import CurvesForm
from profiles.measuring import capture
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.loading import load
from profiles.measuring.output_error import output_errors
from profiles.measuring.prompt_run import PromptRun
from profiles.measuring.residual_stream import residual_stream
from profiles.measuring.sampled_rows import SampledRows
from profiles.measuring.statistics import curves_form

from . import tiny

TOKENS, SIZE = 64, 16


def measured(folder, tmp_path, tokens, selector=select_for_budgets, block=SIZE, change=None):
    choices = Choices(
        str(folder),
        tmp_path,
        (TOKENS,),
        block_tokens=block,
        rows=TOKENS,
        piece_tokens=SIZE,
        gradients=True,
    )
    loaded = load(choices)
    if change is not None:
        change(loaded.model)
    run = PromptRun(loaded, choices, {TOKENS: choices.budgets()[0]}, selector)
    item = Item(0, "text", TOKENS, tuple(tokens[0].tolist()), tuple(range(1, TOKENS)))
    return choices, item, run.measure(item)


def by_definition(folder, tokens, choices):
    """output [layers, heads, points] and gradient errors, every list and every row one by one."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    outputs = []

    def keep(_module, given):
        given[0].retain_grad()
        outputs.append(given[0])

    queries, keys, values = [], [], []
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_pre_hook(keep)
        layer.self_attn.v_proj.register_forward_hook(lambda _m, _g, out: values.append(out))

    def rotate(module, _given, named):
        hidden, (cos, sin) = named["hidden_states"], named["position_embeddings"]
        for kept, projection in ((queries, module.q_proj), (keys, module.k_proj)):
            x = projection(hidden)[0].view(TOKENS, -1, module.head_dim).transpose(0, 1)
            half = torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)
            kept.append(x * cos[0] + half * sin[0])

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(rotate, with_kwargs=True)
    result = model(tokens, output_attentions=True, output_hidden_states=True)
    torch.nn.functional.cross_entropy(result.logits[0, :-1], tokens[0, 1:]).backward()
    found, weighed = [], []
    block = choices.block_tokens
    blocks = torch.arange(TOKENS // block)
    for number, layer in enumerate(model.model.layers):
        maps, weight = result.attentions[number][0].detach(), layer.self_attn.o_proj.weight.detach()
        heads, size = maps.shape[0], layer.self_attn.head_dim
        value = values[number][0].detach().view(TOKENS, -1, size).transpose(0, 1)
        stream = result.hidden_states[number][0].detach()
        after = stream + outputs[number][0].detach() @ weight.T
        lists = select_for_budgets(
            queries[number].detach(),
            keys[number].detach(),
            blocks,
            block,
            choices.piece,
            choices.selection,
        )
        for head in range(heads):
            v = value[head * len(value) // heads]
            gradient = outputs[number].grad[0, :, head * size :][:, :size]
            for pieces in choices.budgets()[0]:
                moved, along = 0.0, 0.0
                for row in range(TOKENS):
                    chosen = lists(pieces)[head, row // block].repeat_interleave(choices.piece)
                    kept = maps[head, row] * chosen
                    less = kept @ v / kept.sum() - maps[head, row] @ v
                    out = less @ weight[:, head * size :][:, :size].T
                    moved += float(out.square().sum() / after[row].square().sum())
                    along += float((gradient[row] @ less) ** 2)
                found.append(moved / TOKENS)
                weighed.append(along / TOKENS)
    shape = (len(model.model.layers), heads, -1)
    return np.array(found).reshape(shape), np.array(weighed).reshape(shape)


@pytest.mark.parametrize("block", [SIZE, 2 * SIZE])
def test_errors_are_those_of_the_definition(tmp_path, block: int) -> None:
    folder = tiny.model(tmp_path / "llama", "llama")
    tokens = torch.randint(4, 64, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    choices, _, found = measured(folder, tmp_path, tokens, block=block)
    output, gradient = by_definition(folder, tokens, choices)
    # fp32 leaves of a difference of nothing what it leaves.
    assert found["output_error"] == pytest.approx(output, rel=1e-3, abs=1e-9 * output.max())
    assert found["gradient_error"] == pytest.approx(gradient, rel=1e-3, abs=1e-9 * gradient.max())
    assert (found["output_error"][..., 0] > 0).all()
    assert (found["output_error"][..., -1] < 1e-9).all()


def test_what_a_list_holds_counts_where_next_to_all_attention_is_elsewhere() -> None:
    """Softmax over the list itself, as an executor computes it: against float64, of logits up to
    some hundreds."""
    made = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, TOKENS, 8, generator=made) for _ in range(3))
    weight, stream = torch.randn(12, 8, generator=made), torch.randn(TOKENS, 12, generator=made)
    k[:, SIZE // 2] *= 300
    call = LayerAttention(0, q, k, v, 1.0, out_weight=weight)
    position, piece = torch.arange(TOKENS), torch.arange(TOKENS // SIZE)
    rows = SampledRows(position, piece, position // SIZE)
    own = torch.eye(len(piece), dtype=torch.bool)
    every = torch.ones_like(own)
    lists = torch.stack([own, own | (piece == 1), every])[:, None]
    found = output_errors(call, rows, stream, lists, SIZE)

    scores = (q[0].double() @ k[0].double().T).masked_fill(position > position[:, None], -torch.inf)
    dense = scores.softmax(-1) @ v[0].double()
    after = stream.double() + dense @ weight.double().T
    kept = lists[:, 0].repeat_interleave(SIZE, 1).repeat_interleave(SIZE, 2)
    inside = scores.softmax(-1) * kept
    assert (inside.float().sum(-1)[0] == 0).any()  # what was divided by
    sparse = scores.masked_fill(~kept, -torch.inf).softmax(-1) @ v[0].double()
    moved = ((sparse - dense) @ weight.double().T).square().sum(-1) / after.square().sum(-1)
    assert found[0].tolist() == pytest.approx(moved.mean(-1).tolist(), rel=1e-4)
    assert found[0, 0] > found[0, 2] == 0


def test_a_profile_holds_the_means_over_prompts(tmp_path) -> None:
    folder = tiny.model(tmp_path / "llama", "llama")
    made = torch.Generator().manual_seed(2)
    parts = []
    for _ in range(2):
        tokens = torch.randint(4, 64, (1, TOKENS), generator=made)
        choices, item, found = measured(folder, tmp_path, tokens)
        parts.append((item, found))
    form = curves_form(parts, choices)
    assert isinstance(form, CurvesForm)
    mean = (parts[0][1]["output_error"] + parts[1][1]["output_error"]) / 2
    assert np.array(form.output_error)[:, :, 0] == pytest.approx(mean)
    weighed = (parts[0][1]["gradient_error"] + parts[1][1]["gradient_error"]) / 2
    assert np.array(form.gradient_error) == pytest.approx(weighed)


def test_without_an_executor_there_are_no_errors(tmp_path) -> None:
    folder = tiny.model(tmp_path / "llama", "llama")
    tokens = torch.randint(4, 64, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    _, _, found = measured(folder, tmp_path, tokens, selector=None)
    assert "output_error" not in found
    assert "gradient_error" not in found


def test_output_errors_are_left_out_where_a_layers_projection_is_unknown(tmp_path) -> None:
    def hide(model) -> None:
        attention = model.model.layers[1].self_attn
        attention.o_proj = torch.nn.Sequential(attention.o_proj)

    folder = tiny.model(tmp_path / "llama", "llama")
    tokens = torch.randint(4, 64, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    _, _, found = measured(folder, tmp_path, tokens, change=hide)
    assert set(found) == {"recovery", "selected_recovery", "gradient_error"}


def test_the_stream_of_one_layer_is_kept_at_a_time(tmp_path) -> None:
    folder = tiny.model(tmp_path / "llama", "llama")
    model = load(Choices(str(folder), tmp_path, (TOKENS,), block_tokens=SIZE, rows=8)).model
    kept: list[tuple[int, list[int]]] = []
    with (
        residual_stream(model) as stream,
        capture.watching(lambda call, _out: kept.append((call.layer, list(stream)))),
    ):
        model(torch.ones(1, 2, dtype=torch.long))
    assert kept == [(0, [0]), (1, [1])]
