"""vLLM serves plans: within covering budgets its own tokens, within sparse ones transformers'.

Engines start in processes of their own: one without a plan, one with all ranks' slots, one of two
ranks that serves HTTP while its plan is changed, and one of two ranks on a real model.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from transformers import AutoModelForCausalLM

from executor.engines.transformers.attach import attach
from executor.engines.transformers.slots import slot_policy
from executor.engines.vllm import serving
from executor.engines.vllm.written import NAME, weight_bytes
from executor.errors import WeightsError
from executor.inference.listed_policy import ListedPolicy
from executor.weights.execution_map import MAP_FILE, ExecutionMap
from executor.weights.slots import slots_of
from solver.plans import Plan
from tests.engines.made import LONGEST, ROOT, VOCABULARY, folders, real
from tests.executor.fake_planner import FakePlanner
from tests.executor.plans import assignment

CHUNK, NEW = 128, 8
ENGINE = {
    "enforce_eager": True,
    "dtype": "float32",
    "block_size": 32,
    "max_model_len": LONGEST // 2,
    "max_num_batched_tokens": CHUNK,
    "max_num_seqs": 8,
    "seed": 0,
}
Said = list[list[list[int]]]


def prompts() -> tuple[Said, Said]:
    """Batches that the least budget covers, and one that it does not: mixed lengths, decodes
    beside chunks, a prefix of another request's that ends inside a query block, and chunks."""
    draw = random.Random(0)

    def words(count: int) -> list[int]:
        return [draw.randrange(1, VOCABULARY) for _ in range(count)]

    prefix = words(170)
    covered = [
        [words(5), words(100), words(220), words(17)],
        [prefix + words(20)],
        [prefix + words(30), words(3), words(1)],
    ]
    return covered, [[words(700)]]


COVERED, SPARSE = prompts()


def environment(ranks: int) -> dict[str, str]:
    """A core for every rank, of those that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    bound = "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))
    return {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": bound,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if ranks == 1 else "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
        "VLLM_PLUGINS": "hplb",
        "HF_HUB_OFFLINE": "1",
    }


@dataclass(frozen=True)
class Made:
    """What a process of `served` wrote, and all it printed."""

    said: Said
    lists: dict[str, int]
    by: list[str]
    log: str


def served(where: Path, model: Path, batches: Said, ranks: int = 1, **options: Any) -> Made:
    asked, made = where / f"{model.name}{ranks}.asked", where / f"{model.name}{ranks}.made"
    engine = {**ENGINE, "model": str(model), "tensor_parallel_size": ranks, **options}
    asked.write_text(json.dumps({"engine": engine, "batches": batches, "new_tokens": NEW}))
    command = [sys.executable, "-m", "tests.engines.served", str(asked), str(made)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(ranks),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ran.returncode:
        raise RuntimeError(ran.stdout)
    return Made(**json.loads(made.read_text()), log=ran.stdout)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("engines")
    folders(made)
    return made


@pytest.fixture(scope="module")
def stock(where: Path) -> Made:
    return served(where, where / "model", COVERED + SPARSE)


@pytest.fixture(scope="module")
def planned(where: Path) -> Made:
    return served(where, where / "planned", COVERED + SPARSE)


@dataclass(frozen=True)
class Answered:
    """What two ranks said over HTTP while no planner was there, of themselves, of each plan that
    one gave them amid requests, by the plan's folder, and `refusing` one that cannot be loaded."""

    said: Said
    metrics: str
    refusing: list[Said]
    after: dict[str, "After"]
    log: str


@dataclass(frozen=True)
class After:
    """What was said `amid` a change, round after round, and of itself `after` it; tokens that were
    found in the prefix cache by a request `known` before and by the first then, and the metrics."""

    amid: list[Said]
    said: Said
    known: float
    hits: float
    metrics: str


@contextmanager
def answering(model: Path, log: Path, ranks: int, told: dict[str, Any]) -> Iterator[httpx.Client]:
    """vLLM's OpenAI server with a model, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {**ENGINE, "model": model, "tensor_parallel_size": ranks, "port": port}
    options["additional_config"] = json.dumps(told)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        command.append(flag if value is True else f"{flag}={value}")
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as out, httpx.Client(base_url=address, timeout=None) as client:
        server = subprocess.Popen(command, cwd=ROOT, env=environment(ranks), stdout=out, stderr=out)
        try:
            while not healthy(client):
                with pytest.raises(subprocess.TimeoutExpired):
                    server.wait(1)
            yield client
        finally:
            server.terminate()
            server.wait()


def healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def planner() -> Iterator[FakePlanner]:
    """One that is away, and wants nothing yet."""
    planner = FakePlanner().reserve()
    yield planner
    planner.stop()


@pytest.fixture(scope="module")
def ranks(where: Path, planner: FakePlanner) -> Answered:
    model, log = where / "planned", where / "server.log"
    told = {
        "hplb_planner": planner.url,
        "hplb_node": "e",
        "hplb_sample_every": 1,
        "hplb_state_dir": str(where / "state"),
    }

    def ask(client: httpx.Client, tokens: list[int]) -> list[int]:
        body = {"model": str(model), "prompt": tokens, "max_tokens": NEW, "temperature": 0}
        body |= {"ignore_eos": True, "return_token_ids": True}
        reply = client.post("/v1/completions", json=body).raise_for_status()
        found: list[int] = reply.json()["choices"][0]["token_ids"]
        return found

    def wanted(name: str, generation: int) -> None:
        """Both ranks are to serve a plan, each as its own device."""
        plan = Plan.load(where / f"{name}.json")
        for rank in range(2):
            planner.wanted_of[f"e-{rank}"] = assignment(plan, devices=[rank], generation=generation)

    def until(client: httpx.Client, there: Callable[[], bool]) -> list[Said]:
        """What is said, round after round, until then."""
        amid: list[Said] = []
        while not there() or len(amid) < 2:
            together = [tokens for batch in COVERED for tokens in batch]
            answers = iter(list(pool.map(partial(ask, client), together)))
            amid.append([[next(answers) for _ in batch] for batch in COVERED])
            # What writes weights gives way to who serves.
            time.sleep(0.5)
        return amid

    def again(client: httpx.Client) -> tuple[float, list[int]]:
        """Of a prompt that was asked for before the tokens found in the prefix cache, where a hit
        begins within one of its query blocks, and what is said."""
        before = total(client, "vllm:prefix_cache_hits_total")
        said = ask(client, SPARSE[0][0])
        return total(client, "vllm:prefix_cache_hits_total") - before, said

    def changed(client: httpx.Client, name: str, generation: int) -> After:
        """Another plan, amid requests and after them, until it is measured."""
        ask(client, SPARSE[0][0])
        known, _ = again(client)
        before = switched(client)
        wanted(name, generation)
        amid = until(client, lambda: switched(client) > before)
        hits, sparse = again(client)
        said = [list(pool.map(partial(ask, client), batch)) for batch in COVERED] + [[sparse]]
        live = {"deployment": "prod", "generation": generation}
        while not all(live in each for each in leased(planner, "active")):
            time.sleep(0.1)
        while reported(planner, generation) != {"e-0", "e-1"}:
            ask(client, COVERED[0][0])
        return After(amid, said, known, hits, client.get("/metrics").text)

    with answering(model, log, 2, told) as client, ThreadPoolExecutor(8) as pool:
        said = [list(pool.map(partial(ask, client), batch)) for batch in COVERED + SPARSE]
        metrics = client.get("/metrics").text
        wanted("planned", 1)
        planner.start()
        while len({sent["node_id"] for sent in planner.batches}) < 2:
            time.sleep(0.1)
        after = {"changed": changed(client, "changed", 2)}
        place = slots_of(Plan.load(where / "broken.json")).id[:NAME]
        shutil.copytree(where / "broken", where / "state" / "e.weights" / place)
        wanted("broken", 3)
        refusing = until(client, lambda: all(refused(planner, 3)))
        after["other"] = changed(client, "other", 4)
    return Answered(said, metrics, refusing, after, log.read_text())


def values(text: str) -> dict[str, float]:
    """Of Prometheus' lines, by name and labels."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def total(client: httpx.Client, name: str) -> float:
    found = values(client.get("/metrics").text)
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)


def switched(client: httpx.Client) -> float:
    """How many plans went live on every rank."""
    found = values(client.get("/metrics").text)
    return min(found[f'hplb_plan_switches_total{{engine="0",rank="{rank}"}}'] for rank in "01")


def leased(planner: FakePlanner, what: str) -> list[list[Any]]:
    """What the leases of each rank's node have said."""
    boots = {each["node_id"]: each["boot_id"] for each in planner.registrations}
    return [
        [lease[what] for lease in planner.leases if lease["boot_id"] == boots[node]]
        for node in ("e-0", "e-1")
    ]


def refused(planner: FakePlanner, generation: int) -> list[bool]:
    """Whether each rank has said that it cannot load a generation's weights."""
    said = f"prod {generation}: "
    return [any(said in (each or "") for each in errors) for errors in leased(planner, "error")]


def reported(planner: FakePlanner, generation: int) -> set[str]:
    """The nodes that have told of a generation."""
    return {sent["node_id"] for sent in planner.batches if sent["generation"] == generation}


def test_a_model_without_a_map_keeps_its_stock_attention(stock: Made) -> None:
    assert set(stock.by) == {"vllm.v1.attention.backends.cpu_attn.CPUAttentionBackendImpl"}
    assert "HPLB" not in stock.log


def test_covering_budgets_give_the_stock_engines_tokens(stock: Made, planned: Made) -> None:
    assert set(planned.by) == {"executor.engines.vllm.cpu.Impl"}
    assert planned.said[:-1] == stock.said[:-1]


def test_and_at_two_ranks_that_divide_heads(stock: Made, ranks: Answered) -> None:
    assert ranks.said[:-1] == stock.said[:-1]


@torch.no_grad()
def listed(folder: Path, prompt: list[int]) -> tuple[list[int], dict[str, int]]:
    """What the plan in a folder makes of a prompt in transformers, and its lists."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    policy = ListedPolicy(slot_policy(model, folder))
    attach(model, policy)
    ids = torch.tensor([prompt])
    cache, said = None, []
    for chunk in ids.split(CHUNK, 1):
        made = model(chunk, past_key_values=cache, use_cache=True)
        cache = made.past_key_values
    for _ in range(NEW):
        newest = made.logits[:, -1:].argmax(-1)
        said.append(int(newest))
        made = model(newest, past_key_values=cache, use_cache=True)
    return said, {" ".join(map(str, key)): lists for key, lists in policy.lists.items()}


def test_sparse_budgets_are_the_plans_in_transformers(
    where: Path, stock: Made, planned: Made, ranks: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    said, expected = listed(where / "planned", SPARSE[0][0])
    assert planned.lists.keys() == expected.keys()
    equal = sum(planned.lists[key] == lists for key, lists in expected.items()) / len(expected)
    with capsys.disabled():
        sys.stderr.write(f"\n{100 * equal:.2f} % of {len(expected)} lists are as in transformers\n")
    assert equal >= 0.99
    assert planned.said[-1] == ranks.said[-1] == [said]
    assert stock.said[-1] != [said]


@pytest.mark.parametrize("name", ["changed", "other"])
def test_ranks_begin_with_another_plan_at_one_step(
    where: Path, stock: Made, ranks: Answered, name: str
) -> None:
    """Amid requests: rows computed twice or by nobody, K/V of other budgets or heads of another
    layout would change these tokens."""
    after, made = ranks.after[name], ExecutionMap.load(where / name)
    assert all(said == stock.said[:-1] for said in after.amid)
    assert after.said[:-1] == stock.said[:-1]
    said = listed(where / name, SPARSE[0][0])[0]
    assert after.said[-1] == [said]
    assert after.known > 0
    assert after.hits == 0
    same_budgets = made.budgets == ExecutionMap.load(where / "planned").budgets
    assert (after.said[-1] == ranks.said[-1]) == same_budgets
    infos = [line for line in after.metrics.splitlines() if line.startswith("hplb_plan_info{")]
    assert sum(f'map="{made.hash}"' in line and line.endswith(" 1.0") for line in infos) == 2
    told = f"HPLB: plan {made.plan[:12]}, map {made.hash[:12]} from now on: budgets of 320 tokens"
    assert ranks.log.count(told) == 2


def test_weights_that_cannot_be_loaded_are_given_back(stock: Made, ranks: Answered) -> None:
    """One in the midst of the others, which had been read by then."""
    assert all(said == stock.said[:-1] for said in ranks.refusing)
    assert ranks.log.count("cannot be loaded") == 1


def test_another_layout_is_written_and_loaded_while_requests_go_on(
    where: Path, ranks: Answered
) -> None:
    first, changed, other = (
        ExecutionMap.load(where / name).layout.id for name in ("planned", "changed", "other")
    )
    assert first == changed != other
    (place,) = (each for each in (where / "state" / "e.weights").iterdir() if each.is_dir())
    weights = {file.name: file.read_bytes() for file in (where / "other").iterdir()}
    assert {file.name: file.read_bytes() for file in place.iterdir()} == weights
    found = {name: values(after.metrics) for name, after in ranks.after.items()}
    for rank in "01":
        of_rank = f'{{engine="0",rank="{rank}"}}'
        loaded, stall, wanted = (
            [found[name][f"hplb_plan_{what}{of_rank}"] for name in ("changed", "other")]
            for what in ("loaded_bytes_total", "switch_seconds_total", "wanted_timestamp_seconds")
        )
        assert loaded == [0, weight_bytes(place)]
        assert 0 < stall[0] < stall[1]
        assert wanted == [0, 0]
        rows, held = (
            sum(
                v
                for name, v in found["other"].items()
                if name.startswith(what) and f'rank="{rank}"' in name
            )
            for what in ("hplb_watched_rows_total", "hplb_held_rows_total")
        )
        assert 0 < held < rows
    assert ranks.log.count("HPLB: writing the weights of plan") == 1


@pytest.mark.usefixtures("ranks")
def test_both_ranks_tell_the_same_steps_of_real_requests(planner: FakePlanner) -> None:
    runs = {sent["run"] for sent in planner.batches}
    assert len(runs) == 1
    steps: dict[str, dict[tuple[int, str], dict[str, Any]]] = {"e-0": {}, "e-1": {}}
    for sent in planner.batches:
        for step in sent["steps"]:
            steps[sent["node_id"]][step["number"], step["phase"]] = step
        assert sent["timing"] == "concurrent"
        assert all(sample["seconds"] > 0 for sample in sent["samples"])
        assert {sample["layer"] for sample in sent["samples"]} == {1}
    common = steps["e-0"].keys() & steps["e-1"].keys()
    assert len(common) > 2 * NEW
    assert all(steps["e-0"][key] == steps["e-1"][key] for key in common)
    assert {phase for _, phase in common} == {"prefill", "decode"}
    prompts = [step for step in steps["e-0"].values() if step["phase"] == "prefill"]
    assert max(step["context_tokens"] for step in prompts) == len(SPARSE[0][0])
    assert {sent["generation"] for sent in planner.batches} == {1, 2, 4}


@torch.no_grad()
def test_a_real_model_at_two_ranks_that_its_heads_do_not_divide_by(
    smollm2: Path, tmp_path: Path
) -> None:
    real(smollm2, tmp_path / "smollm2")
    asked = [[[*range(100 + 7 * each, 100 + 7 * each + 60 * each + 9)] for each in range(4)]]
    found = served(tmp_path, tmp_path / "smollm2", asked, 2)
    model: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    for prompt, said in zip(asked[0], found.said[0], strict=True):
        made = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            min_new_tokens=NEW,
            max_new_tokens=NEW,
            do_sample=False,
        )
        assert made[0, len(prompt) :].tolist() == said


def test_what_ranks_serve_is_told_beside_vllms_own_metrics(where: Path, ranks: Answered) -> None:
    made = ExecutionMap.load(where / "planned")
    found = values(ranks.metrics)
    assert any(name.startswith("vllm:") for name in found)
    for rank in ("0", "1"):
        labels = f'engine="0",layout="{made.layout.id}",map="{made.hash}",plan="{made.plan}"'
        told = [name for name in found if name.startswith("hplb_plan_info{")]
        (info,) = (name for name in told if f'rank="{rank}"' in name)
        assert all(part in info for part in labels.split(","))
        of_rank = f'{{engine="0",rank="{rank}"}}'
        names = (f"hplb_{name}_total{of_rank}" for name in ("steps", "tiles", "dense_tiles"))
        steps, tiles, dense = (found[name] for name in names)
        assert steps > NEW
        assert 0 < tiles < dense
    budgets = sum(value for name, value in found.items() if name.startswith("hplb_budget_tokens"))
    assert budgets == pytest.approx(sum(map(sum, made.budgets)))
    assert f"HPLB: plan {made.plan[:12]}" in ranks.log
    assert "budgets of 320 tokens a head (256 to 512), 31.2 % of a context of 1024" in ranks.log


def test_a_plan_for_other_weights_is_refused_at_start(where: Path) -> None:
    named = {"hplb_plan": str(where / "other" / MAP_FILE)}
    with pytest.raises(RuntimeError) as refused:
        served(where, where / "planned", SPARSE, additional_config=named)
    theirs, ours = (ExecutionMap.load(where / name).layout.id[:12] for name in ("other", "planned"))
    assert f"is for weights of the layout {theirs}, these have {ours}" in str(refused.value)
    assert "Loading weights took" not in str(refused.value)


def test_ranks_with_other_maps_refuse_to_serve(where: Path, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_compared, (where, tmp_path), nprocs=2)
    said = [(tmp_path / f"{rank}").read_text() for rank in range(2)]
    assert all("all ranks must load one checkpoint" in each for each in said)
    assert all("None" in each for each in said)


def _compared(rank: int, where: Path, out: Path) -> None:
    """Rank 0 finds a map, rank 1 none."""
    dist.init_process_group("gloo", f"file://{out}/store", rank=rank, world_size=2)
    serving.get_tp_group = lambda: type("Group", (), {"cpu_group": dist.group.WORLD})
    made = None if rank else ExecutionMap.load(where / "planned")
    with pytest.raises(WeightsError) as refused:
        serving._compare(made, None, rank, 2)
    (out / f"{rank}").write_text(str(refused.value))
    dist.destroy_process_group()
