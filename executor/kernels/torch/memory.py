"""Memory that threads use again: fresh memory for every batch would fault its pages in."""

import math
import threading

import torch

MOST_KEPT_BYTES = 2**24


class Memory:
    """Each thread's own, by name and dtype, for as long as this object and the thread are there;
    more than MOST_KEPT_BYTES are kept by nobody."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def room(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """The memory called `name`, holding anything, until the thread asks for it again."""
        rooms: dict[object, tuple[torch.Tensor, torch.Tensor]] | None
        rooms = getattr(self._thread, "rooms", None)
        if rooms is None:
            rooms = self._thread.rooms = {}
        memory, view = rooms.get((name, dtype), (None, None))
        if view is not None and view.shape == shape:
            return view
        size = math.prod(shape)
        if memory is None or memory.numel() < size:
            # Written within inference mode and without.
            with torch.inference_mode(False):
                memory = torch.empty(size, dtype=dtype)
        view = memory[:size].view(shape)
        if memory.nbytes <= MOST_KEPT_BYTES:
            rooms[name, dtype] = memory, view
        return view
