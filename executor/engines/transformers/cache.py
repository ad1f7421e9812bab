"""A cache of transformers whose keys stay where they are: decoding copies and bounds the new ones.

    model.generate(**inputs, past_key_values=GrowingCache(model.config))

transformers' own dynamic cache copies every key at every token, and tells nobody which of them
are new; with any cache but this one a decode computes the bounds of all pages anew.
"""

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from executor.inference.room import Room, room_of


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """As transformers' dynamic layer, with a room that new tokens are written to.

    Whatever else changes the layer's keys (cropped, reordered, loaded, moved) leaves plain tensors,
    from which the next update makes a new room.
    """

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_: object,
        **__: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [sequences, kv_heads, tokens, head_dim] of all tokens so far."""
        room = room_of(self.keys, self.values)
        # An earlier state of a room, such as a copied layer's, may not write to it.
        if (
            room is not None
            and self.keys is not None
            and room.filled == self.keys.shape[2]
            and room.takes(key_states, value_states)
        ):
            room.append(key_states, value_states)
        else:
            room = Room(*super().update(key_states, value_states))
        self.keys, self.values = room.held()
        return self.keys, self.values


class GrowingCache(DynamicCache):
    """In place of `DynamicCache(config=config)`: the same keys to any attention implementation.

    Layers with a sliding window keep transformers' own. Bounds of pieces are computed at decodes by
    an attached policy, for its size of pieces.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.layers = [
            GrowingLayer() if type(layer) is DynamicLayer else layer  # type: ignore[no-untyped-call]
            for layer in self.layers
        ]
