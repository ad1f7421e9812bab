"""Which pieces a policy's heads chose for a prompt: two runs that chose alike have equal lists."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

from executor.inference.policy import Attended, Chosen, LayerCall, Policy
from executor.kernels.layout import ALL_PIECES


@dataclass(eq=False)
class ListedPolicy:
    """A policy, and a checksum of every list that left something out.

    `lists` by (layer, head of the calls' q, query block from the start of the sequence).
    """

    policy: Policy
    lists: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call."""
        found = self.policy.attend(call)
        if found.chosen is not None:
            for head, block, checksum in _checksums(found.chosen):
                self.lists[call.layer, head, block] = checksum
        return found


def _checksums(chosen: Chosen) -> Iterator[tuple[int, int, int]]:
    layout, pieces = chosen.layout, chosen.indices.cpu().numpy()
    heads = layout.entries[layout.entry.long(), 0]
    columns = (heads, layout.query_block, layout.start, layout.length)
    for head, block, start, length in zip(*(each.tolist() for each in columns), strict=True):
        if start != ALL_PIECES:
            yield head, block, crc32(pieces[start : start + length].tobytes())
