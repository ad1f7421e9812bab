"""What `--additional-config` may say to HPLB: which plan, and whom to tell what was measured."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from executor.errors import WeightsError
from profiles.model import NAME_PATTERN

SAMPLE_EVERY = 64
"""Steps of which one is timed, unless said."""


@dataclass(frozen=True)
class Options:
    """`hplb_plan`: another map than the one beside the weights. `hplb_planner`: the service's URL
    (its key comes from HPLB_API_KEY), and `hplb_node` the name of which each rank's node has one
    with its number. `hplb_sample_every`: one step in so many is timed, none with 0.
    `hplb_device_type`: the ranks', found out where it can be. `hplb_state_dir`: where a rank's
    assignment and spool are kept, and checkpoints of other layouts."""

    plan: str = ""
    planner: str = ""
    node: str = ""
    sample_every: int = SAMPLE_EVERY
    device_type: str = ""
    state_dir: str = ""

    @classmethod
    def of(cls, additional_config: Any) -> Self:
        """Raises WeightsError for a key of ours that does not exist, or what it may not be."""
        given = additional_config if isinstance(additional_config, dict) else {}
        ours = {key: value for key, value in given.items() if key.startswith("hplb_")}
        known = {f"hplb_{name}": field for name, field in cls.__dataclass_fields__.items()}
        for key, value in ours.items():
            if key not in known:
                raise WeightsError(
                    f"HPLB: --additional-config: no {key}; there are {', '.join(known)}"
                )
            kind = int if key == "hplb_sample_every" else str
            if not isinstance(value, kind) or isinstance(value, bool):
                raise WeightsError(f"HPLB: {key}: {value!r} must be of type {kind.__name__}")
        found = cls(**{key.removeprefix("hplb_"): value for key, value in ours.items()})
        if found.sample_every < 0:
            raise WeightsError(f"HPLB: hplb_sample_every: {found.sample_every} must be at least 0")
        if bool(found.planner) != bool(found.node):
            raise WeightsError("HPLB: hplb_planner and hplb_node: one needs the other")
        if found.node and not re.fullmatch(NAME_PATTERN, found.node):
            raise WeightsError(
                f"HPLB: hplb_node: {found.node!r} must be letters, digits, '.', '_' or '-'"
            )
        return found

    def node_of(self, engine: int, rank: int) -> str:
        """The name of a rank's node; data-parallel engines beyond the first say which."""
        return f"{self.node}-{rank}" if engine == 0 else f"{self.node}.{engine}-{rank}"

    def folder_of(self, node: str) -> Path:
        """Where a node's assignment and spool are kept."""
        if self.state_dir:
            return Path(self.state_dir) / node
        return Path.home() / ".local/state/hplb" / node

    def weights_of(self, engine: int) -> Path:
        """Where checkpoints of other layouts are written for all ranks of an engine."""
        return self.folder_of(
            f"{self.node}.weights" if engine == 0 else f"{self.node}.{engine}.weights"
        )


def api_key() -> str | None:
    """The planner's key: of the environment, for vLLM logs its configuration."""
    return os.environ.get("HPLB_API_KEY") or None
