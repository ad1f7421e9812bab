"""What measuring costs an engine that runs: `python -m benchmarks.measuring`, one core.

    $(tests/engines/make_environment.sh FOLDER)/bin/python -m benchmarks.measuring
        [--rounds 8] [--json [FILE]]

vLLM in one process serves SmolLM2-135M by the plan of `benchmarks.serving`: the same requests in
every round, with every batch timed and with none, in turn. What counts is the processor time of
the whole process, the thread that reports with it. Of one batch in 64, as it is unless said, the
cost is a 64th.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.cpu_attention import spread
from benchmarks.engines.plans import DIVIDED
from benchmarks.serving import MODEL, SEED, placed, say
from executor.engines.vllm.options import SAMPLE_EVERY
from executor.weights.apply import apply
from profiles.errors import HplbError
from profiles.measuring.loading import folder_of

REQUESTS, PROMPT, MADE = 4, 256, 32
"""Of a round: prompts of so many tokens, and as many made from each."""
ENGINE = {
    "enforce_eager": True,
    "dtype": "float32",
    "block_size": 64,
    "max_model_len": 2048,
    "max_num_batched_tokens": 1024,
    "enable_prefix_caching": False,
    "additional_config": {"hplb_sample_every": 1},
    "seed": 0,
}
TOLD = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def rounds_of(folder: Path, count: int) -> list[tuple[float, float]]:
    """Processor seconds of rounds, `count` times one with every batch timed and one with none."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    os.environ |= TOLD | {"VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1"}
    # Read at import.
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from executor.engines.vllm import serving

    engine: Any = LLM(model=str(folder), **ENGINE)
    (served,) = serving._served.values()
    assert served is not None
    draw = random.Random(SEED)
    prompts = [
        TokensPrompt(prompt_token_ids=[draw.randrange(100, 40_000) for _ in range(PROMPT)])
        for _ in range(REQUESTS)
    ]
    params = SamplingParams(temperature=0.0, max_tokens=MADE, ignore_eos=True)

    def seconds(sample_every: int) -> float:
        served.sample_every = sample_every
        began = time.process_time()
        engine.generate(prompts, params, use_tqdm=False)
        return time.process_time() - began

    seconds(1)
    found = []
    for number in range(count):
        # Whichever comes first has no advantage of it.
        turns = (1, 0) if number % 2 else (0, 1)
        took = {every: seconds(every) for every in turns}
        found.append((took[1], took[0]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="of either")
    parser.add_argument("--plan-seconds", type=float, default=3, help="of the plan")
    asked = report.arguments(parser)
    with tempfile.TemporaryDirectory(prefix="hplb-measuring-") as name:
        folder = Path(name) / "served"
        say("planning")
        apply(folder_of(MODEL), placed(asked.plan_seconds)[DIVIDED], folder, False, lambda *_: None)
        found = rounds_of(folder, asked.rounds)
    more = spread([100 * (timed / plain - 1) for timed, plain in found])
    print(
        f"every batch timed: {more['median']:+.2f} % ({more['least']:+.2f} to {more['most']:+.2f}) "
        f"of {found[0][1]:.1f} s; one in {SAMPLE_EVERY}: {more['median'] / SAMPLE_EVERY:+.3f} %",
        file=report.table_to(asked.json),
    )
    report.deliver(
        asked.json,
        note="vLLM in one process on one core, fp32, eager",
        vllm=version("vllm-cpu"),
        torch=torch.__version__,
        model=MODEL,
        requests=REQUESTS,
        prompt_tokens=PROMPT,
        made_tokens=MADE,
        every=SAMPLE_EVERY,
        more_percent=more,
        rounds=[{"timed_s": timed, "plain_s": plain} for timed, plain in found],
    )


if __name__ == "__main__":
    try:
        main()
    except HplbError as error:
        sys.exit(str(error))
