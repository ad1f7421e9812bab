"""`hplb_plan.json`, beside the weights: which slot is which head, and what it computes.

What an attention function on an engine reads, and whoever moves K/V between engines: the KV head
at slot s of rank r is not the model's head r * slots + s.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from executor.errors import WeightsError
from executor.weights.slots import Layout, Record, SlotLayout
from profiles.architecture import Architecture
from profiles.errors import ProfileError, describe
from profiles.files import read_json, write_atomically
from profiles.selection import POOLED, Selection
from profiles.size_fields import SizeFields
from solver.plans import Plan

MAP_FILE = "hplb_plan.json"
LAYOUT_FIELD = "hplb_layout"
"""What config.json calls the layout that the weights beside it have, by its id."""


class Original(Record):
    """What the checkpoint was: `tensors_sha256` of all its tensors, `files` by name, whole."""

    tensors_sha256: str
    files: dict[str, str]


class HeadMap(Record, SizeFields):
    """What every rank of a plan holds and computes.

    `budgets` [layers][query heads] tokens by the model's own numbers of heads, whose pieces are
    chosen by `selection`. `hash` names layout, budgets, selection and sizes: ranks compare it.
    """

    plan: str
    hash: str = ""
    architecture: Architecture
    layout: Layout
    budgets: list[list[int]]
    selection: Selection = POOLED

    @classmethod
    def of(cls, plan: Plan, layout: Layout, **own: Any) -> Self:
        """The map of a plan that is laid out so, with what else such a map has of its own."""
        made = cls(
            plan=plan.id,
            architecture=plan.architecture,
            layout=layout,
            block_tokens=plan.workload.block_tokens,
            piece_tokens=plan.workload.piece_tokens,
            budgets=plan.budgets,
            selection=plan.selection,
            **own,
        )
        return made.model_copy(update={"hash": made.content_hash()})

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        shape = self.architecture
        if len(self.layout.layers) != shape.layers:
            raise ValueError(f"layout: must have the model's {shape.layers} layers")
        wrong = (
            slot.group >= shape.kv_heads or any(shape.kv_head(h) != slot.group for h in slot.heads)
            for slot in self.layout.filled
        )
        if any(wrong):
            raise ValueError("layout: a slot's heads must be those of its KV group")
        if [len(row) for row in self.budgets] != [shape.query_heads] * shape.layers:
            raise ValueError(f"budgets: must be {shape.layers} x {shape.query_heads}")
        return self

    def content_hash(self) -> str:
        """SHA-256 of all that decides what a rank computes."""
        content = self.model_dump(mode="json", exclude={"plan", "hash", "original"})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


class ExecutionMap(HeadMap):
    """Of a plan written into weights: the slots of every rank."""

    layout: SlotLayout
    original: Original

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        write_atomically(folder / MAP_FILE, self.model_dump_json() + "\n")

    @classmethod
    def load(cls, place: Path) -> Self:
        """The map beside a folder's weights, or in a file. Raises WeightsError where there is none
        to be used."""
        path = place / MAP_FILE if place.is_dir() else place
        if not path.is_file():
            raise WeightsError(f"{place}: has no {MAP_FILE}, which `hplb apply` writes")
        try:
            found = cls.model_validate(read_json(path))
        except ProfileError as error:
            raise WeightsError(str(error)) from None
        except ValidationError as error:
            raise WeightsError(f"{path}: {describe(error)}") from None
        if found.hash != found.content_hash():
            raise WeightsError(f"{path}: its hash is not that of its slots and budgets: changed?")
        return found
