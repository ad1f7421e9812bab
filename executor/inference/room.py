"""Keys and values that grow in place, and the bounds of their pieces, computed once.

A place is written once: what was handed out stays as it was, and whoever drops tokens, reorders
sequences or goes on from an earlier state takes another room. So bounds of full pieces are true for
as long as their room is.
"""

import copy
from contextlib import AbstractContextManager
from typing import Any

import torch

from executor.kernels.batch import Cache, Chunk, as_pages
from executor.kernels.bounds import page_bounds, update_page_bounds

LEAST_SPARE = 256
"""Tokens that a new room has to spare; a quarter of those it holds, where that is more."""
LARGEST_PIECE = 128
"""Room behind the last place, so that the newest piece is a whole page, if no larger than this."""


class InRoom(torch.Tensor):
    """The keys, or the values, that a room held when it handed them out.

    Whatever is computed from it, a slice included, is a plain tensor.
    """

    room: "Room"
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return copy.deepcopy(self.as_subclass(torch.Tensor), memo)


def room_of(keys: torch.Tensor | None, values: torch.Tensor | None) -> "Room | None":
    """The room that handed out both."""
    if isinstance(keys, InRoom) and isinstance(values, InRoom) and keys.room is values.room:
        return keys.room
    return None


class Room:
    """Keys and values of a layer, [sequences, kv_heads, places, head_dim], the first `filled`."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """One that holds copies of keys and values [sequences, kv_heads, tokens, head_dim]."""
        self.filled = 0
        self.places = keys.shape[2] + max(LEAST_SPARE, keys.shape[2] // 4)
        with _writable():
            self._keys, self._values = (
                x.new_empty(*x.shape[:2], self.places + LARGEST_PIECE, x.shape[3])
                for x in (keys, values)
            )
        self._kinds = _kind(keys), _kind(values)
        self._sequences: dict[tuple[int, int], Sequence] = {}
        self.append(keys, values)

    def takes(self, keys: torch.Tensor, values: torch.Tensor) -> bool:
        """Whether keys and values [sequences, kv_heads, new, head_dim] are like those held, and
        there are places left for them."""
        return (
            self.filled + keys.shape[2] <= self.places
            and (_kind(keys), _kind(values)) == self._kinds
            and not (keys.requires_grad or values.requires_grad)
            and not (self._keys.requires_grad or self._values.requires_grad)
        )

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Fill the next places with what it takes."""
        new = keys.shape[2]
        self._keys.narrow(2, self.filled, new).copy_(keys)
        self._values.narrow(2, self.filled, new).copy_(values)
        self.filled += new

    def held(self) -> tuple[InRoom, InRoom]:
        """Keys and values [sequences, kv_heads, filled, head_dim], not copied."""
        keys = self._keys.narrow(2, 0, self.filled).as_subclass(InRoom)
        values = self._values.narrow(2, 0, self.filled).as_subclass(InRoom)
        keys.room = values.room = self
        return keys, values

    def sequence(self, number: int, first: int) -> "Sequence":
        """Sequence `number` from place `first` on."""
        at = number, first
        found = self._sequences.get(at)
        if found is None:
            keys, values = (x[number, :, first:] for x in (self._keys, self._values))
            found = self._sequences[at] = Sequence(keys, values)
        return found


class Sequence:
    """A sequence in a room: keys and values [kv_heads, places, head_dim]."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys, self._values = keys, values
        self._paged: Cache | None = None
        self._bounds: torch.Tensor | None = None
        self._bounded = 0
        self._newest: tuple[torch.Tensor, ...] = ()

    def pages(self, tokens: int, piece_tokens: int) -> tuple[Cache, torch.Tensor] | None:
        """Its first `tokens` in pages of a piece each, not copied, and the pages' bounds.

        Where all but the newest piece were full when last asked for, only that one's are computed,
        from the newest key alone where that is all that is new.
        None where the room ends within the newest piece.
        """
        if self._keys.shape[1] < -(-tokens // piece_tokens) * piece_tokens:
            return None
        if self._paged is None or self._paged.page_tokens != piece_tokens:
            self._paged, self._bounds, self._bounded = self._as_pages(piece_tokens), None, 0
        full, within = divmod(self._bounded, piece_tokens)
        if self._bounds is not None and tokens == self._bounded + 1:
            key = self._keys.select(1, self._bounded)
            if not within or not self._newest:
                self._newest = self._bounds[full].unbind(1)
            least, greatest = self._newest
            if within:
                torch.minimum(least, key, out=least)
                torch.maximum(greatest, key, out=greatest)
            else:
                least.copy_(key)
                greatest.copy_(key)
        elif self._bounds is None or full < (tokens - 1) // piece_tokens:
            with _writable():
                self._bounds = page_bounds(self._paged, self._length(tokens))
            self._newest = ()
        elif tokens != self._bounded:
            update_page_bounds(self._paged, self._bounds, self._length(tokens))
        self._bounded = tokens
        return self._paged, self._bounds

    def _length(self, tokens: int) -> torch.Tensor:
        return torch.tensor([tokens], dtype=torch.int32, device=self._keys.device)

    def _as_pages(self, piece_tokens: int) -> Cache:
        places = self._keys.shape[1] // piece_tokens * piece_tokens
        keys, values = (x[:, :places] for x in (self._keys, self._values))
        starts = torch.zeros(1, dtype=torch.int32, device=keys.device)
        return as_pages(Cache(keys, values, starts=starts), (Chunk(0, places),), piece_tokens)


def _kind(x: torch.Tensor) -> tuple[object, ...]:
    """What is to be alike of x [sequences, kv_heads, tokens, head_dim] and what is held."""
    sequences, heads, _, size = x.shape
    return sequences, heads, size, x.dtype, x.device


def _writable() -> AbstractContextManager[None]:
    """Tensors made in it can be written within inference mode and without."""
    return torch.inference_mode(False)
