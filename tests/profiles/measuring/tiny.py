"""Small random models of several families, a tokenizer of words, and prompts for them."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

# Such models are computed faster by one thread than handed to several.
torch.set_num_threads(1)

WORDS = 60
SHAPE = {
    "vocab_size": WORDS + 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 40
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gemma3_text": {
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 20,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def model(folder: Path, family: str = "llama", seed: int = 0, **changes: object) -> Path:
    """Save a random model with attention far from uniform, biases and norms included."""
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family], **changes})
    torch.manual_seed(seed)
    found = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj")):
                weight.normal_(0, 0.5)
            elif "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
            elif weight.dim() == 2:
                weight.mul_(10)
    found.save_pretrained(folder)
    tokenizer(folder)
    return folder


def tokenizer(folder: Path) -> None:
    words = ["[PAD]", "[BOS]", "[EOS]", "."] + [f"w{number}" for number in range(WORDS)]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="."))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="[BOS]").save_pretrained(folder)


def text(words: int, seed: int) -> str:
    made = torch.Generator().manual_seed(seed)
    return " ".join(f"w{n}" for n in torch.randint(0, WORDS, (words,), generator=made).tolist())


def prompts(path: Path, lengths: dict[str, list[int]]) -> Path:
    """One plain text for every length of every task."""
    lines = [
        {"text": text(length, 1000 * number + length), "task": task}
        for task, each in lengths.items()
        for number, length in enumerate(each)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
