"""Threads that each do whole batches: they meet once a call, not at every product.

A core that something else needs then delays one batch. Tasks are taken in the order given.

Not where an engine keeps PyTorch's threads to itself: vLLM's CPU worker binds each to a core of its
own and replaces `torch.set_num_threads` by a function that warns. Threads of ours would all inherit
the one core of the thread that starts them, and each start more.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def tasks_at_once() -> int:
    """How many tasks are worked on at once: as many as PyTorch may use threads; one where an engine
    has its threads bound, for they then share every product of the task."""
    ours = torch.set_num_threads is torch._C.set_num_threads
    return torch.get_num_threads() if ours else 1


def in_threads(work: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """`work` of every task, begun in this order, on `tasks_at_once` threads.

    Meanwhile PyTorch uses one a task: many short parallel loops would wait for one another.
    """

    def alone(task: Task) -> Result:
        # A mode of the thread: tensors made in it can be written in it alone.
        with torch.inference_mode():
            return work(task)

    threads = tasks_at_once()
    if threads == 1:
        return list(map(work, tasks))
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, tasks))
    finally:
        torch.set_num_threads(threads)
