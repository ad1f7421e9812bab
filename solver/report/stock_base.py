"""What a user of a stock engine would run on the same devices, against which HPLB is held.

Stock tensor parallelism takes numbers of ranks that the query heads divide by, and the KV heads,
or a multiple of the KV heads, each of which is then on several ranks (vLLM's rule, SGLang's, too).
Where that refuses all devices as one group, smaller groups serve side by side.
"""

from dataclasses import asdict, dataclass

from profiles.architecture import Architecture


@dataclass(frozen=True)
class StockBase:
    """`replicas` engines of `ranks` devices each: as many devices as there are."""

    ranks: int
    replicas: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def stock_base(architecture: Architecture, gpus: int) -> StockBase:
    """The largest groups, all alike, that stock engines run on so many devices."""
    ranks = max(
        ranks for ranks in range(1, gpus + 1) if gpus % ranks == 0 and _runs(architecture, ranks)
    )
    return StockBase(ranks, gpus // ranks)


def _runs(architecture: Architecture, ranks: int) -> bool:
    query, kv = architecture.query_heads, architecture.kv_heads
    return query % ranks == 0 and (kv % ranks == 0 or ranks % kv == 0)
