"""Threads that each do whole batches: they meet once a call, not at every product.

A core that something else needs then delays one batch. Tasks are taken in the order given.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_threads(work: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """`work` of every task, begun in this order, on as many threads as PyTorch may use.

    Meanwhile PyTorch uses one a task: many short parallel loops would wait for one another.
    """

    def alone(task: Task) -> Result:
        # A mode of the thread: tensors made in it can be written in it alone.
        with torch.inference_mode():
            return work(task)

    threads = torch.get_num_threads()
    if threads == 1:
        return [alone(task) for task in tasks]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, tasks))
    finally:
        torch.set_num_threads(threads)
