"""Another plan begun with between two steps of the whole engine, with other weights where it needs
them.

Ranks get ready, and the front end, which alone may hold the engine up, asks them what for. Once all
say the same it holds the engine between two steps, has its K/V and prefix caches emptied, all ranks
load the new weights where the plan has another layout, and all begin. Requests under way are
computed anew from their tokens; none is lost. It is an endpoint plugin of vLLM, which asks to be
named in VLLM_PLUGINS, and adds no route.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm.logger import init_logger
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.v1.worker.worker_base import WorkerBase

from executor.engines.vllm.options import Options
from executor.engines.vllm.serving import Offer, Serving, known_as, listening

LOOK_S = 5.0
"""Between two questions to the ranks, each of which waits for the step under way."""
logger = init_logger("vllm.hplb")


class Mover:
    """Of an engine's front end, the first where it has several."""

    name = "hplb"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """No route is added."""

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Begin to ask, where a planner may want other plans."""
        del state, args
        config = engine_client.vllm_config
        parallel = config.parallel_config
        if not Options.of(config.additional_config).planner or parallel._api_process_rank > 0:
            return
        if parallel.data_parallel_size > 1:
            logger.warning(
                "HPLB: data-parallel engines are not held up: plans of another layout wait for the "
                "next start"
            )
            return
        self._task = asyncio.create_task(self._watch(engine_client))

    async def _watch(self, engine: Any) -> None:
        while not engine.errored:
            try:
                # Asked before the first request: from then on no rank begins by itself.
                offers = await _ranks(engine, offer)
                if offers[0] and all(each == offers[0] for each in offers):
                    await self._move(engine, *offers[0])
            except Exception as error:
                # Whatever it is: the engine goes on with what it serves.
                if not engine.errored:
                    logger.warning("HPLB: %s: %s", type(error).__name__, error)
            await asyncio.sleep(LOOK_S)

    async def _move(self, engine: Any, name: str, other_weights: bool) -> None:
        """Begin with what all ranks are ready for, unless somebody else holds the engine."""
        if await engine.is_paused():
            return
        began = time.perf_counter()
        try:
            await engine.pause_generation(mode="keep", clear_cache=True)
        except Exception as error:
            await engine.resume_generation()
            await _ranks(engine, refuse, name, f"the engine cannot be held up: {error}")
            return
        try:
            fault = await _fault(engine, load) if other_weights else None
            if fault is None:
                fault = await _fault(engine, begin, name, time.perf_counter() - began)
                if fault is not None:
                    raise RuntimeError(fault)
            else:
                logger.error("HPLB: %s", fault)
                back = await _fault(engine, load_back)
                if back is not None:
                    raise RuntimeError(back)
                await _ranks(engine, refuse, name, fault)
        except Exception as error:
            # Of ranks that hold different plans no answer is right, so that none may be given.
            logger.critical("HPLB: the ranks are left with unlike weights; ending: %s", error)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await engine.resume_generation()


async def _ranks(engine: Any, method: Callable[..., Any], *given: Any) -> list[Any]:
    found: list[Any] = await engine.collective_rpc(_named(method), args=given)
    return found


async def _fault(engine: Any, method: Callable[..., Any], *given: Any) -> str | None:
    """The first rank's that has one: none raises, for vLLM would leave the others' answers lie."""
    return next((each for each in await _ranks(engine, method, *given) if each is not None), None)


# Of a rank, in its worker -------------------------------------------------------------------------


def offer(_: WorkerBase) -> Offer | None:
    """What the rank is ready to begin with, and whether that needs other weights."""
    served = listening()
    return None if served is None else served.offer()


def load(worker: WorkerBase) -> str | None:
    """Load the weights of what was offered; the fault, None where there was none."""
    return _load(worker, lambda served: served.offered_weights)


def load_back(worker: WorkerBase) -> str | None:
    """Load the weights of what is still served."""
    return _load(worker, lambda served: served.weights)


def begin(_: WorkerBase, name: str, stall_s: float) -> str | None:
    """Begin with what was offered by this name, for which steps have waited so long."""
    served = listening()
    return "there is none" if served is None else served.begin(name, stall_s)


def refuse(_: WorkerBase, name: str, why: str) -> None:
    """Do not offer again what was offered by this name."""
    served = listening()
    if served is not None:
        served.refuse(name, why)


METHODS = (offer, load, load_back, begin, refuse)


def add_methods() -> None:
    """Let a front end ask vLLM's workers for them."""
    for method in METHODS:
        setattr(WorkerBase, _named(method), method)


def _named(method: Callable[..., Any]) -> str:
    return f"hplb_{method.__name__}"


def _load(worker: WorkerBase, which: Callable[[Serving], Path]) -> str | None:
    """By the engine's own reload, in place."""
    served = listening()
    if served is None:
        return "there is none"
    folder = which(served)
    try:
        for layer in worker.model_runner.get_model().modules():
            # What a reload has read that failed is not this one's.
            info = get_layerwise_info(layer)
            info.loaded_weights.clear()
            info.load_numel = 0
        worker.reload_weights(weights_path=str(folder))
        known_as(served, worker.vllm_config)
    except Exception as error:
        return f"{folder}: cannot be loaded: {type(error).__name__} {error}".rstrip()
    return None
