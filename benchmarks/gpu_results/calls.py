"""Timed calls of a results file, and the work of each as the cost model counts it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.gpu.rows import Row
from benchmarks.gpu.work import Work
from benchmarks.gpu_results.reading import Results, ResultsError
from profiles.cost.work import FEATURES, INDEX, Floats


@dataclass(frozen=True)
class Call:
    """One call: where its time stands, and what it did (`benchmarks.gpu.work`)."""

    place: str
    seconds: float
    work: Work

    @property
    def kind(self) -> str:
        """What it did, in words."""
        work = self.work
        if work["phase"] == "projection":
            return "matrix product"
        what = []
        if work["attends"] and work["phase"] == "decode":
            what = ["dense" if not work["listed_flops"] else "sparse"]
        elif work["attends"]:
            what = ["dense" if not work["sparse_head_flops"] else "sparse"]
        what += ["selection"] if work["chooses"] else []
        sizes = f"pieces of {work['piece_tokens']}"
        if work["phase"] == "prefill":
            sizes = f"{work['block_tokens']} x {work['piece_tokens']}"
        return f"{work['phase']}, {' and '.join(what)}, {sizes}"


def calls(results: Results) -> list[Call]:
    """Every call whose row says what it did; raises ResultsError where it does not say how long.

    A time that several rows repeat is one call. Without choices by rule: they look at nothing, and
    their time is none that a feature has.
    """
    rows = [(name, row) for name, s in results.sections.items() for row in s["rows"]]
    rows += [("shared", row) for row in results.shared.values()]
    every: dict[str, Call] = {}
    for section, row in rows:
        for call in _calls(section, row):
            if np.count_nonzero(features(call.work)) > 1:
                every.setdefault(json.dumps([call.seconds, call.work], sort_keys=True), call)
    return list(every.values())


def _calls(section: str, row: Row) -> Iterator[Call]:
    for column, work in row.get("work", {}).items():
        place = f"{section}: {row.get('case', '')} {column}"
        if column not in row:
            raise ResultsError(f"{place}: work of a column that the row does not have")
        if not isinstance(work, list):
            yield Call(place, row[column], work)
            continue
        for index, (seconds, each) in enumerate(zip(row[column], work, strict=True)):
            if each:
                yield Call(f"{place} {index}", seconds, each)


def features(work: Work) -> Floats:
    """Work in the units of `profiles.cost.work`, `[FEATURES]`."""
    counts = dict.fromkeys(FEATURES, 0.0) | {"launches": 1.0}
    if work["phase"] == "projection":
        counts["projection_flops"] = work["flops"]
    else:
        by_row = 2 * work["piece_tokens"] * work["head_dim"]
        counts["scored_blocks"] = sum(work["scored_pairs"].values())
        counts["sampled_flops"] = by_row * work["sampled_pairs"]
        if work["attends"]:
            counts["dense_tile_flops"] = work.get("diagonal_flops", 0) + work["dense_flops"]
            counts["gathered_tile_flops"] = work["listed_flops"]
            counts["query_blocks"] = work["lists"]
            counts["kv_bytes"] = work["q_bytes"] + work["out_bytes"] + work["kv_bytes"]
            counts["kv_lists"] = work["groups"]
    found = np.zeros(len(FEATURES))
    for name, count in counts.items():
        found[INDEX[name]] = count
    return found
