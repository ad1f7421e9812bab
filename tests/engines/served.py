"""One engine in a process of its own: `python -m tests.engines.served ASKED MADE`.

ASKED is a JSON object: `engine`, arguments of vLLM's LLM, and `batches` of prompts, lists of
tokens, each handed over at once. To MADE go the `new_tokens` that followed each greedily, and in an
engine within this process what computes attention and the lists that the last batch chose.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt

from executor.engines.vllm import attention
from executor.kernels.layout import ALL_PIECES


def listed() -> dict[str, int]:
    """A checksum of every list that a layer chooses for a prompt from now on and that leaves
    something out, by "layer head block"."""
    found: dict[str, int] = {}
    layer = 0
    forward, attend = attention.PlanImpl.forward, attention.attend

    def told(impl: Any, module: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal layer
        layer = impl._layer(module)
        return forward(impl, module, *arguments, **options)

    def kept(q: Any, cache: Any, step: Any, **options: Any) -> Any:
        result = attend(q, cache, step, **options)
        if step.prefill is not None:
            lists, pieces = step.prefill, result.indices.numpy()
            heads = lists.entries[lists.entry.long(), 0]
            columns = (heads, lists.query_block, lists.start, lists.length)
            for head, block, start, length in zip(*(x.tolist() for x in columns), strict=True):
                if start != ALL_PIECES:
                    chosen = pieces[start : start + length]
                    found[f"{layer} {head} {block}"] = crc32(chosen.tobytes())
        return result

    attention.PlanImpl.forward, attention.attend = told, kept
    return found


def main(asked: Path, made: Path) -> None:
    """Start the engine, hand it batch after batch, write down what it made of them."""
    request = json.loads(asked.read_text())
    engine = LLM(**request["engine"])
    params = SamplingParams(temperature=0.0, max_tokens=request["new_tokens"], ignore_eos=True)
    said, lists = [], {}
    for batch in request["batches"]:
        lists = listed() if batch is request["batches"][-1] else {}
        prompts = [TokensPrompt(prompt_token_ids=tokens) for tokens in batch]
        outputs = engine.generate(prompts, params, use_tqdm=False)
        said.append([list(output.outputs[0].token_ids) for output in outputs])
    here = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    made.write_text(json.dumps({"said": said, "lists": lists, "by": by(engine) if here else []}))


def by(engine: LLM) -> list[str]:
    """The class of every layer's attention and of what prepares its batches."""
    found: list[list[str]] = engine.collective_rpc(_by)
    return found[0]


def _by(worker: Any) -> list[str]:
    runner = worker.model_runner
    layers = runner.compilation_config.static_forward_context.values()
    impls = [type(layer.impl) for layer in layers]
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in impls]


if __name__ == "__main__":
    main(*(Path(each) for each in sys.argv[1:]))
