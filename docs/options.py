"""Writes docs/options.md from the request's schema and the commands' flags; or checks that it is.

    python docs/options.py [--check]

Run it whenever a field or a flag changes. --check writes nothing and ends with 1 where the page is
not what it would write.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from api.main import gather
from api.settings import told_settings
from benchmarks.markdown import table
from solver.request import PlanRequest

PAGE = Path(__file__).with_suffix(".md")
Schema = dict[str, Any]
Parameter = Any
"""Of a command, as typer's own copy of click has it."""

HEAD = """\
# Options

`python docs/options.py` writes this page from the schema of `POST /plan` and the flags of `hplb`,
and a test holds them together. `solver.plans` takes the same fields as keywords. What does not go
together is refused, by name: HTTP 422 with the field, an error on stderr and exit code 2 on the
command line.

```console
$ hplb plan --gpus 8 --context 131072            # the shipped (synthetic) Llama-3.1-8B profile
$ hplb compare --gpus 2,4,8 --plot loads.svg     # every method, both deployments
$ hplb advise -p mine.json --gpus 8 --trace requests.jsonl     # is it worth it for this traffic?
$ hplb profiles import minference Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json \\
    --name mine -o mine.json            # the model is read off the name, else --model or --config
$ hplb plan --profile mine.json --gpus 4 -o plan.json && hplb verify plan.json
$ hplb plan --model MODEL_FOLDER --gpus 3 --divisible            # its shape alone, budgets dense
$ hplb plan --gpus 8 --divisible --explain       # heads shared by devices; what binds each layer
$ hplb plan --gpus 8 --workloads steps.json --objective worst      # several contexts, phases, tasks
$ hplb plan --gpus 8 --memory --kv-retention budget --current-plan plan.json
$ hplb plan --gpus 8 --slots auto --divisible    # on engines whose ranks are all alike
$ hplb plan --gpus 384 --node-size 8 --divisible # a supernode, beside a replica on every node
$ hplb plan --profile reference-model --gpus 4 --context 2048 --budget-policy elastic \\
    --budget-density 0.3                         # MoA's rules, from recovery curves
```

The exact methods use up to `--time-limit` a plan, so that a full `compare` takes minutes. A memory
limit that cannot hold is an error with the proof in bytes. Every plan says what the other
deployment would make of it.

A flag means the same in every command, and one in the plural takes several, with commas between.
`--json` prints for programs what is printed for people; both on stdout. Progress is on stderr, a
bar on a terminal and elsewhere a line every ten seconds, with the time left; nothing goes through a
pager. `hplb --install-completion` teaches your shell (bash, zsh, fish, PowerShell) commands, flags
and the names of profiles, models, device types, methods and policies.

## The request
"""

POLICIES = {
    "profile": "what the profile says: stated budgets, rules at the context, samples' mean ratio, "
    "or of curves the least tokens that reach `recovery`; clipped to the context",
    "dense": "the whole context for every head",
    "uniform": "`tokens` for every head",
    "recovery": "the least tokens that reach `recovery`",
    "max_min": "the total that `tokens` a head would draw, shared out so that the least recovered "
    "head recovers most, exactly (S-HPLB's aim)",
    "max_min_shifting": "the same by the paper's greedy: a piece a step from the most to the least "
    "recovered head",
    "least_error": "the same total at the least sum of what budgets do to the heads' outputs, by "
    "errors as measured (`error`); or the least total that keeps `loss`",
    "elastic": "MoA's rules alpha + beta x context, chosen so that the summed loss is least at "
    "several contexts under a density: a multiple-choice knapsack",
}
METHODS = {
    "auto": "quick starts, then refinements until proved or out of time; the only one that divides "
    "heads",
    "contiguous": "file order, as stock tensor parallelism",
    "snake": "heads sorted by cost, dealt out and back, as xDiT does",
    "greedy": "the costliest head to the least loaded device (LPT), the paper's",
    "greedy_equal": "the same with equal counts, as EPLB packs",
    "cp_sat": "OR-tools' CP-SAT on every layer",
    "ilp": "PuLP with CBC on every layer",
}
COMMANDS = (
    "`--help` lists a command's flags; those that run a model are explained in "
    "[models.md](models.md)."
)
SETTINGS = "Environment variables of `hplb serve`; `hplb settings` prints them."
APART = {"ModelProfile": "a profile", "Plan": "a plan"}
"""What a field may hold that has a page of its own."""
SHOWN_FIELDS = ("field", "`hplb plan`", "values", "default", "meaning")
SHOWN_FLAGS = ("flag", "default", "meaning")


def page() -> str:
    """The whole page."""
    commands = ("plan", "compare", "advise", "verify")
    plan, compare, advise, verify = (_command(name) for name in commands)
    flags = {flag: parameter for parameter in plan.params for flag in parameter.opts}
    lines, taken = [HEAD], set[str]()
    for prefix, schema in _objects(PlanRequest.model_json_schema()):
        lines += [f"### `{prefix}`: {_sentence(schema)}", ""] if prefix else []
        rows = []
        for name, field in schema["properties"].items():
            flag = None if "[]" in prefix else _flag(prefix, name, set(flags) - taken)
            taken |= set(flags[flag].opts) if flag else set()
            path = f"{prefix}.{name}" if prefix else name
            rows.append((f"`{path}`", f"`{flag}`" if flag else "", *_told(name, field, schema)))
        lines += table(SHOWN_FIELDS, rows)
    lines += ["### Budget policies", "", *_meanings(POLICIES, "budget.policy")]
    lines += ["### Methods", "", *_meanings(METHODS, "method")]
    beyond = [p for p in plan.params if not taken & set(p.opts)]
    lines += ["## `hplb plan`", "", _text(plan), ""]
    lines += ["Beside the flags above, and `--gpus` 8 and `--context` 131072 unless given:", ""]
    lines += _flags(beyond)
    lines += ["## `hplb compare`", "", _text(compare), ""]
    shared = [p for p in compare.params if _same(p, flags)]
    alike = ", ".join(f"`{_longest(p)}`" for p in shared)
    lines += [f"As in `hplb plan`: {alike}. Its own:", ""]
    lines += _flags([p for p in compare.params if p not in shared])
    lines += ["## `hplb advise`", "", _text(advise), "", *_flags(advise.params)]
    lines += ["## `hplb verify`", "", _text(verify), "", *_flags(verify.params)]
    lines += ["## Every command", "", COMMANDS, ""]
    shown = []
    for name, command in _every(typer.main.get_command(gather())):
        what, _, example = (command.help or "").partition("Example: ")
        first = _line(what.partition("\n\n")[0])
        shown.append((f"`hplb {name}`", first, f"`{_line(example)}`"))
    lines += table(("command", "what it does", "example"), shown)
    lines += ["## Settings of the service", "", SETTINGS, ""]
    told = [
        (f"`{each.variable}`", each.kind, f"`{each.default}`" if each.default else "", each.meaning)
        for each in told_settings()
    ]
    lines += table(("variable", "type", "default", "meaning"), told)
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str) -> TyperCommand:
    return dict(_every(typer.main.get_command(gather())))[name]


def _every(command: Any, before: str = "") -> Iterator[tuple[str, TyperCommand]]:
    """All commands with what is typed for them, groups' names first."""
    for name, inner in sorted(command.commands.items()):
        if isinstance(inner, TyperGroup):
            yield from _every(inner, f"{before}{name} ")
        else:
            yield f"{before}{name}", inner


def _objects(root: Schema) -> Iterator[tuple[str, Schema]]:
    """The request's own fields, then those of the objects that it holds, by path."""
    waiting = [("", root)]
    while waiting:
        prefix, schema = waiting.pop(0)
        yield prefix, schema
        for name, field in schema["properties"].items():
            path = f"{prefix}.{name}" if prefix else name
            for each in field.get("anyOf", [field]):
                mark = "[]" if each.get("type") == "array" else ""
                kind = each.get("items", each).get("$ref", "").rpartition("/")[2]
                if kind and kind not in APART:
                    waiting.append((path + mark, root["$defs"][kind]))


def _flag(prefix: str, name: str, free: set[str]) -> str | None:
    """The flag of a field: named alike, maybe after the object that holds it, without its unit."""
    plain = re.sub("_(s|bytes|tokens)$", "", name)
    parent = prefix.rpartition(".")[2]
    for candidate in (name, plain, f"{parent}_{name}", f"{parent}_{plain}"):
        flag = "--" + candidate.replace("_", "-")
        if flag in free:
            return flag
    return None


def _told(name: str, field: Schema, schema: Schema) -> tuple[str, str, str]:
    """Values, default and meaning of a field."""
    default = field.get("default")
    if name in schema.get("required", ()):
        shown = "(required)"
    elif default is None or isinstance(default, dict):
        shown = ""
    else:
        shown = f"`{default}`" if isinstance(default, str) else _plain(default)
    return _values(field), shown, _line(field["description"])


def _values(field: Schema) -> str:
    """What a field may be, in words."""
    if "anyOf" in field:
        return " or ".join(_values(each) for each in field["anyOf"] if each.get("type") != "null")
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return APART.get(name, "below")
    if "enum" in field:
        return ", ".join(
            f"`{value}`" if isinstance(value, str) else f"{value}" for value in field["enum"]
        )
    if field["type"] == "array":
        return f"a list: {_values(field['items'])}"
    words = {"integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(field["type"], "text") + _range(field)


def _range(field: Schema) -> str:
    bounds = [
        f"{sign} {_plain(field[name])}"
        for name, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if name in field
    ]
    return f" {', '.join(bounds)}" if bounds else ""


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return f"{value:,.0f}" if whole else f"{value:g}"


def _line(text: str) -> str:
    """One line of a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(schema: Schema) -> str:
    first = _line(schema["description"].partition("\n\n")[0]).rstrip(".")
    return first[0].lower() + first[1:]


def _meanings(meanings: dict[str, str], field: str) -> list[str]:
    return table((f"`{field}`", "what"), [(f"`{name}`", text) for name, text in meanings.items()])


def _flags(parameters: list[Parameter]) -> list[str]:
    rows = []
    for parameter in parameters:
        default = "" if parameter.default in (None, False) else f"`{parameter.default}`"
        named = (
            f"`{_longest(parameter)}`"
            if parameter.opts[0].startswith("-")
            else f"`{parameter.name.upper()}`"
        )
        rows.append((named, default, _line(getattr(parameter, "help", "") or "")))
    return table(SHOWN_FLAGS, rows)


def _same(parameter: Parameter, flags: dict[str, Parameter]) -> bool:
    """Whether `hplb plan` has the same flag with the same meaning and default."""
    other = flags.get(parameter.opts[0])
    return other is not None and all(
        getattr(parameter, name, None) == getattr(other, name, None) for name in ("help", "default")
    )


def _longest(parameter: Parameter) -> str:
    return max(parameter.opts, key=len)


def _text(command: TyperCommand) -> str:
    return _line((command.help or "").partition("Example: ")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it would")
    wanted, said = page(), PAGE.read_text() if PAGE.exists() else ""
    if not parser.parse_args().check:
        PAGE.write_text(wanted)
    elif wanted != said:
        sys.exit(f"{PAGE}: not what the schema and the flags say")


if __name__ == "__main__":
    main()
