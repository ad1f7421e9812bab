"""What `--additional-config` may say to HPLB."""

from pathlib import Path

import pytest

from executor.engines.vllm.options import SAMPLE_EVERY, Options
from executor.errors import WeightsError


def test_what_is_not_said_is_usual() -> None:
    assert Options.of(None) == Options.of({}) == Options.of({"of_another": 1}) == Options()
    assert Options().sample_every == SAMPLE_EVERY
    assert Options().planner == ""


def test_ranks_are_nodes_of_their_own() -> None:
    told = {"hplb_planner": "http://planner", "hplb_node": "chat", "hplb_state_dir": "/var/hplb"}
    found = Options.of(told)
    assert [found.node_of(0, rank) for rank in range(2)] == ["chat-0", "chat-1"]
    assert found.node_of(3, 1) == "chat.3-1"
    assert found.folder_of("chat-1") == Path("/var/hplb/chat-1")
    assert Options().folder_of("n") == Path.home() / ".local/state/hplb/n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hplb_plans": "x"}, "no hplb_plans; there are hplb_plan, hplb_planner"),
        ({"hplb_sample_every": "64"}, "hplb_sample_every: '64' must be of type int"),
        ({"hplb_sample_every": True}, "must be of type int"),
        ({"hplb_sample_every": -1}, "must be at least 0"),
        ({"hplb_planner": "http://planner"}, "hplb_planner and hplb_node: one needs the other"),
        ({"hplb_planner": "http://p", "hplb_node": "a b"}, "must be letters, digits"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        Options.of(given)
