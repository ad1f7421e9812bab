"""A tiny model, a tokenizer of the tasks' words, and a profile with random curves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from profiles.model import ModelProfile
from profiles.tasks.haystack import NOISE
from profiles.tasks.words import NAMES, NUMBERS, SYLLABLES

LAYERS, HEADS, KV_HEADS, HEAD_DIM = 2, 4, 2, 16
TASK_WORDS = (
    *("number", "numbers", "all", "label", "code", "let", "equal", "common", "frequent", "words"),
    *("lives", "in", "works", "with", "likes", "partner", "of", ".", ":", "="),
)


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """Whole words where known, else pieces `##x`; begins with [BOS]."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", vocabulary["[BOS]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="[BOS]", pad_token="[UNK]"
    )


def task_tokenizer() -> PreTrainedTokenizerFast:
    noise = [word for sentence in NOISE for word in sentence.split()]
    return tokenizer_of(["[UNK]", "[BOS]", *TASK_WORDS, *noise, *NAMES, *NUMBERS, *SYLLABLES])


def tiny_model(vocabulary: int, positions: int = 256) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=positions,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def tiny_profile(context: int = 256, errors: bool = True, **changes: Any) -> ModelProfile:
    """Concave curves, from hungry to sparse heads."""
    random = np.random.default_rng(3)
    budgets = [16, 32, 64, 128]
    power = random.uniform(0.05, 0.9, (LAYERS, HEADS, 1))
    heads: dict[str, Any] = {
        "form": "recovery_curves",
        "context_tokens": [context],
        "budget_tokens": [budgets],
        "recovery": ((np.array(budgets) / context) ** power)[:, :, None, :].tolist(),
    }
    if errors:
        size = random.uniform(0.1, 1, (LAYERS, HEADS, 1, 1))
        heads["output_error"] = (size * (1 - np.array(heads["recovery"]))).tolist()
        heads["gradient_error"] = np.array(heads["output_error"])[:, :, 0].tolist()
    architecture = {
        "layers": LAYERS,
        "query_heads": HEADS,
        "kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_size": 64,
    }
    fields = {"name": "tiny", "source": "a test", "synthetic": True}
    return ModelProfile.model_validate(
        {**fields, "architecture": architecture, "heads": heads, **changes}
    )


def save_words(path: Path, count: int = 1600) -> Path:
    """A text of words that the tokenizer knows, drawn at random."""
    words = sorted(task_tokenizer().get_vocab())
    path.write_text(" ".join(np.random.default_rng(0).choice(words, count)))
    return path


def save_tiny(folder: Path, positions: int = 256) -> tuple[Path, Path]:
    """The model's directory, and its profile's file."""
    tokenizer = task_tokenizer()
    tiny_model(len(tokenizer), positions).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tiny_profile().save(folder / "profile.json")
    return folder / "model", folder / "profile.json"
