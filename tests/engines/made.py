"""A small model whose heads divide by no two ranks, one of its layers with a window, and plans."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from executor.weights.apply import apply
from executor.weights.checkpoint import CONFIG, INDEX
from profiles.architecture import Architecture
from profiles.config_json import architecture_of
from profiles.files import read_json
from tests.executor.plans import Placement
from tests.executor.weights.models import DIVIDED, WHOLE, planned, save

ROOT = Path(__file__).parents[2]
VOCABULARY, LONGEST = 512, 2048
SHAPE = Architecture(
    layers=2, query_heads=6, kv_heads=3, head_dim=64, hidden_size=96, dtype="float32"
)
BROKEN = "model.layers.1.self_attn.o_proj.weight"
BUDGETS = [[256, 320, 256, 384, 256, 512], [512, 256, 320, 256, 256, 256]]
"""Prompts of up to 256 tokens are covered, those above leave something out."""
ELSEWHERE: list[Placement] = [
    [[(0, 1.0)], [(0, 1.0)], [(0, 0.9), (1, 0.1)], [(0, 0.5), (1, 0.5)], [(1, 1.0)], [(1, 1.0)]],
    [[(0, 1.0)], [(0, 1.0)], [(0, 0.1), (1, 0.9)], [(1, 1.0)], [(1, 1.0)], [(1, 1.0)]],
]
"""The groups of DIVIDED where they are there, other rows of their heads."""


def model(where: Path) -> None:
    """In `where` the small `model`."""
    changes = {
        "head_dim": SHAPE.head_dim,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LONGEST,
        "tie_word_embeddings": False,
    }
    save("gemma3", where / "model", **changes)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(
        where / "model"
    )


def folders(where: Path) -> None:
    """In `where`: `model`, that with heads divided between two ranks, `planned`, with whole heads
    alone, `other`, those in other layers, `broken`, one of whose weights lacks rows, and `changed`,
    whose weights are those of `planned`: heads are divided elsewhere and have other budgets."""
    model(where)
    written(where, "planned", DIVIDED)
    written(where, "other", WHOLE)
    written(where, "broken", WHOLE[::-1])
    index = read_json(where / "broken" / INDEX)["weight_map"]
    file = where / "broken" / index[BROKEN]
    save_file({k: v[:-1] if k == BROKEN else v for k, v in load_file(file).items()}, file)
    written(where, "changed", ELSEWHERE, [row[::-1] for row in BUDGETS])


def real(folder: Path, out: Path) -> None:
    """SmolLM2-135M with a KV group of each layer divided between two ranks, in budgets that cover
    all that it can read."""

    places: Placement = [[(0, 1.0)], [(0, 0.4), (1, 0.6)], [(1, 1.0)]]
    shape = architecture_of(read_json(folder / CONFIG), str(folder))
    size, groups = shape.group_size, shape.kv_heads
    layers = [
        [places[(head // size + number) % groups] for head in range(shape.query_heads)]
        for number in range(shape.layers)
    ]
    plan = planned(layers, slots=2, shape=shape)
    dense = [[8192] * shape.query_heads] * shape.layers
    apply(folder, plan.model_copy(update={"budgets": dense}).identified(), out, False, quiet)


def written(
    where: Path, name: str, layers: list[Placement], budgets: list[list[int]] = BUDGETS
) -> None:
    """The model with a plan in it, which is beside it."""
    plan = planned(layers, slots=2, shape=SHAPE)
    plan = plan.model_copy(update={"budgets": budgets}).identified()
    apply(where / "model", plan, where / name, False, quiet)
    plan.save(where / f"{name}.json")


def quiet(*_: object) -> None:
    """No progress is shown."""
