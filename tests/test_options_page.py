"""docs/options.md has every field of the request and every flag, as they are."""

import re
from types import ModuleType
from typing import get_args

import pytest

from solver.budgets.options import Policy
from solver.request import Method
from tests import scripts

FLAGLESS = {
    "budget",
    "placement",
    "fresh",
    "devices[].type",
    "devices[].count",
    "budget.error",
    "placement.memory.reserved_share",
    "placement.memory.context_tokens",
    "placement.memory.batch_size",
    *(
        f"workloads[].{name}"
        for name in ("context_tokens", "batch_size", "phase", "weight", "profile", "sample")
    ),
}
OTHERWISE_NAMED = {
    "--context": "context_tokens",
    "--time-limit": "time_limit_s",
    "--memory-limit": "placement.memory.limit_bytes",
    "--kv-retention": "placement.memory.kv_retention",
    "--budget-tokens": "budget.tokens",
    "--budget-contexts": "budget.contexts",
}


@pytest.fixture(scope="module")
def options() -> ModuleType:
    return scripts.load("docs/options.py")


def test_the_page_is_what_schema_and_flags_say(options: ModuleType) -> None:
    """Run `python docs/options.py` where this fails."""
    assert options.PAGE.read_text() == options.page()


def test_every_field_has_its_flag_or_is_known_to_have_none(options: ModuleType) -> None:
    rows = re.findall(r"^\| `([a-z_.\[\]]+)` \| (?:`(--[\w-]+)`)? \|", options.page(), re.MULTILINE)
    flags = {flag: field for field, flag in rows if flag}
    assert {field for field, flag in rows if not flag} == FLAGLESS
    assert OTHERWISE_NAMED.items() <= flags.items()


def test_every_flag_is_on_the_page(options: ModuleType) -> None:
    text = options.page()
    for command in ("plan", "compare", "verify"):
        for parameter in options._command(command).params:
            told = (f"`{flag}`" in text for flag in (*parameter.opts, parameter.name.upper()))
            assert any(told), parameter.opts


def test_every_policy_and_method_is_told(options: ModuleType) -> None:
    assert tuple(options.POLICIES) == get_args(Policy)
    assert tuple(options.METHODS) == get_args(Method)
