"""What a query block's sampled rows give to pieces of keys, in float64 and with plain loops."""

import math

import torch

from .reference import sequence_kv


def sampled_places(count, rows):
    """Which of a query block's `count` new rows are scored."""
    return sorted({(i + 1) * count // rows - 1 for i in range(rows)} - {-1})


def sample_reference(q, cache, layout, entry, row):
    """Mass of all pieces up to the last own one of query block `row` of an entry, float64."""
    head, group, sequence, origin, cached, total = layout.entries[entry].tolist()
    block, piece = layout.block_tokens, layout.piece_tokens
    keys, _ = sequence_kv(cache, sequence, group, total)
    begin, end = max(cached, row * block), min(total, (row + 1) * block)
    mass = torch.zeros(-(-end // piece), dtype=torch.float64)
    for place in sampled_places(end - begin, layout.heads[entry].pattern.rows):
        token = begin + place
        scores = keys[: token + 1] @ q[head, origin + token].double() / math.sqrt(q.shape[2])
        found = torch.stack([part.sum() for part in scores.softmax(0).split(piece)])
        mass[: len(found)] += found
    return mass
