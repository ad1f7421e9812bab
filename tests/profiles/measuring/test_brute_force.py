"""A profile of a random two-layer Llama against definitions in plain numpy, end to end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from executor.attention.block_sparse import attend
from executor.attention.select import pattern, select_for_budgets
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.kernels.batch import Cache, Chunk
from executor.kernels.patterns import Sampled
from profiles.heads import CurvesForm
from profiles.measuring import capture
from profiles.measuring.choices import Choices
from profiles.measuring.loading import load
from profiles.measuring.parts import Parts
from profiles.measuring.run import measure_profile
from profiles.measuring.sampled_rows import draw
from profiles.model import ModelProfile
from profiles.tasks.prompts import read

from . import brute, tiny

SIZE, ROWS, CONTEXTS = 16, 20, (64, 136)


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Choices:
    folder = tmp_path_factory.mktemp("brute")
    data = tiny.prompts(folder / "data.jsonl", {"one": [150, 136], "two": [140, 90]})
    return Choices(
        str(tiny.model(folder / "llama", seed=3)), data, CONTEXTS, block_tokens=SIZE, rows=ROWS
    )


@pytest.fixture(scope="module")
def profile(choices: Choices, tmp_path_factory: pytest.TempPathFactory) -> ModelProfile:
    parts = Parts(tmp_path_factory.mktemp("state"))
    return measure_profile(choices, "tiny", parts, select_for_budgets, lambda *_: None)


@pytest.fixture(scope="module")
def heads(profile: ModelProfile) -> CurvesForm:
    assert isinstance(profile.heads, CurvesForm)
    return profile.heads


def prompts_at(choices: Choices, context: int) -> list[tuple[int, list[int]]]:
    tokenizer = AutoTokenizer.from_pretrained(choices.model)
    encoded = [tokenizer(prompt.text)["input_ids"] for prompt in read(choices.data)]
    return [(n, tokens[-context:]) for n, tokens in enumerate(encoded) if len(tokens) >= context]


def test_oracle_curves_agree_with_brute_force(choices: Choices, heads: CurvesForm) -> None:
    model = AutoModelForCausalLM.from_pretrained(choices.model, attn_implementation="eager")
    for place, context in enumerate(CONTEXTS):
        curves = []
        for number, tokens in prompts_at(choices, context):
            rows = draw(context, SIZE, ROWS, np.random.default_rng([0, context, number]))
            with torch.no_grad():
                maps = model(torch.tensor([tokens]), output_attentions=True).attentions
            budgets = [-(-tokens // SIZE) for tokens in heads.budget_tokens[place]]
            layers = []
            for layer in range(2):
                for head in range(4):
                    whole = maps[layer][0, head].double().numpy()
                    mass = brute.piece_mass(whole, rows.position.tolist(), SIZE)
                    layers.append(
                        [
                            brute.oracle(mass, rows.member.tolist(), rows.blocks.tolist(), b)
                            for b in budgets
                        ]
                    )
            curves.append(np.array(layers).reshape(2, 4, -1))
        found = np.array(heads.recovery)[:, :, place]
        assert found == pytest.approx(np.mean(curves, 0), abs=1e-5)
        spread = np.array(heads.spread)[:, :, place]
        assert spread == pytest.approx(np.std(curves, 0, ddof=1), abs=1e-5)
        assert found[:, :, 1].max() < 0.95


class Nearest:
    """A selector that takes the nearest pieces, and remembers which sizes it was asked in."""

    def __init__(self) -> None:
        self.asked: set[tuple[int, int]] = set()

    def __call__(self, q, _k, query_blocks, block_tokens, piece_tokens, _selection):
        self.asked.add((block_tokens, piece_tokens))
        piece = torch.arange(-(-q.shape[1] // piece_tokens))
        end = ((query_blocks + 1) * (block_tokens // piece_tokens)).clamp(max=len(piece))[:, None]
        return lambda budget: ((piece < end) & (piece >= end - budget)).expand(len(q), -1, -1)


@pytest.mark.parametrize("block", [32, 64])
def test_blocks_of_rows_choose_pieces_of_keys(choices: Choices, tmp_path: Path, block: int) -> None:
    """The oracle, and what a selector captures, with several pieces to a query block."""
    asked = replace(choices, block_tokens=block, piece_tokens=SIZE, contexts=(136,), prompts=1)
    selector = Nearest()
    profile = measure_profile(asked, "pieces", Parts(tmp_path), selector, lambda *_: None)
    heads, own = profile.heads, block // SIZE
    assert isinstance(heads, CurvesForm)
    assert selector.asked == {(block, SIZE)}
    # No list is shorter than a query block's own pieces.
    assert heads.budget_tokens == [[min(n * SIZE, 136) for n in range(own, 10)]]
    model = AutoModelForCausalLM.from_pretrained(choices.model, attn_implementation="eager")
    oracles, selected = [], []
    for number, tokens in [prompts_at(asked, 136)[n] for n in (0, 2)]:
        rows = draw(136, block, ROWS, np.random.default_rng([0, 136, number]))
        with torch.no_grad():
            maps = model(torch.tensor([tokens]), output_attentions=True).attentions
        best, taken = np.zeros((2, 4, 10 - own)), np.zeros((2, 4, 10 - own))
        for layer, head in np.ndindex(2, 4):
            whole = maps[layer][0, head].double().numpy()
            mass = brute.piece_mass(whole, rows.position.tolist(), SIZE)
            members, blocks = rows.member.tolist(), rows.blocks.tolist()
            for point, budget in enumerate(range(own, 10)):
                best[layer, head, point] = brute.oracle(mass, members, blocks, budget, own=own)
                ends = [min((blocks[m] + 1) * own, 9) for m in members]
                lists = [slice(max(end - budget, 0), end) for end in ends]
                kept = [row[pieces].sum() for row, pieces in zip(mass, lists, strict=True)]
                taken[layer, head, point] = np.mean(kept)
        oracles.append(best)
        selected.append(taken)
    assert np.array(heads.recovery)[:, :, 0] == pytest.approx(np.mean(oracles, 0), abs=1e-5)
    found = np.array(heads.selected_recovery)[:, :, 0]
    assert found == pytest.approx(np.mean(selected, 0), abs=1e-5)
    assert profile.measurement is not None
    sizes = profile.measurement.block_tokens, profile.measurement.piece_tokens
    assert sizes == (block, SIZE)
    assert (profile.measurement.sink_tokens, profile.measurement.local_tokens) == (SIZE, block)


def test_finer_pieces_recover_more_of_the_same_pairs(choices: Choices, tmp_path: Path) -> None:
    """The oracle of pieces can take whole blocks too, but for a sink that is a block of it."""
    coarse, fine = (
        measure_profile(
            replace(choices, block_tokens=32, piece_tokens=piece, sink_tokens=0),
            "m",
            Parts(tmp_path / str(piece)),
            None,
            lambda *_: None,
        ).heads
        for piece in (None, 16)
    )
    for place in range(len(CONTEXTS)):
        finer = coarse.budget_tokens[place]
        points = [fine.budget_tokens[place].index(tokens) for tokens in finer]
        more = np.array(fine.recovery)[:, :, place, points]
        assert (more >= np.array(coarse.recovery)[:, :, place] - 1e-9).all()


def test_selected_curves_are_what_attention_itself_captures(
    choices: Choices, heads: CurvesForm
) -> None:
    """By log-sum-exp: exp(lse over the lists - lse over all), of the executor's own attention."""
    loaded, place, context = load(choices), 1, CONTEXTS[1]
    model, by_samples = loaded.model, pattern(choices.selection, loaded.architecture, 0, SIZE)
    assert by_samples == Sampled()
    curves = []
    for number, tokens in prompts_at(choices, context):
        calls: list = []
        with torch.no_grad(), capture.watching(lambda call, _, kept=calls: kept.append(call)):
            model(torch.tensor([tokens]))
        rows = draw(context, SIZE, ROWS, np.random.default_rng([0, context, number]))
        by_layer = []
        for call in calls:
            cache = Cache(call.k, call.v, starts=torch.zeros(1, dtype=torch.int32))

            def lse(budget: int, call=call, cache=cache, rows=rows) -> torch.Tensor:
                shares = [HeadShare(h, h // 2, budget, pattern=by_samples) for h in range(4)]
                step = prepare(shares, (Chunk(0, context),), SIZE)
                return attend(call.q, cache, step, "torch").lse[:, rows.position]

            every = lse(context)
            by_layer.append(
                [(lse(b) - every).exp().mean(1).tolist() for b in heads.budget_tokens[place]]
            )
        curves.append(np.array(by_layer).transpose(0, 2, 1))
    found = np.array(heads.selected_recovery)[:, :, place]
    assert found == pytest.approx(np.mean(curves, 0), abs=1e-5)
    recovery = np.array(heads.recovery)[:, :, place]
    assert (found <= recovery + 1e-9).all()
    assert (found < recovery - 0.01).any()


def test_every_choice_is_recorded(profile: ModelProfile) -> None:
    measurement = profile.measurement
    assert measurement is not None
    assert measurement.prompts == {"one": 2, "two": 2}
    assert (measurement.rows, measurement.seed, measurement.block_tokens) == (ROWS, 0, SIZE)
    assert (measurement.sink_tokens, measurement.local_tokens) == (SIZE, SIZE)
    assert set(measurement.versions) == {"python", "hplb", "torch", "transformers"}
    assert profile.architecture.group_size == 2
    assert not profile.synthetic
    pairs = [(pair.axis, pair.between) for pair in measurement.stability]
    assert pairs == [("context", ("64", "136")), ("task", ("one", "two"))]
    assert ModelProfile.parse(profile.model_dump_json(), "again") == profile
