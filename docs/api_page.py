"""Writes docs/api.md from the service's OpenAPI document; or checks that it is.

    python docs/api_page.py [--check | --record]

Run it whenever an operation or a body changes. --check writes nothing and ends with 1 where the
page is not what it would write. --record asks a service of its own and writes what was asked and
answered to api/examples.json, from where the document has its examples.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi.testclient import TestClient

from api.app import create_app
from api.document import EXAMPLES, TAGS, operations
from api.settings import Settings
from benchmarks.markdown import table
from profiles.catalogue import catalogue_rates
from profiles.cost.work import FEATURES
from solver.planning.predict import shard_work
from solver.plans import Plan

PAGE = Path(__file__).with_name("api.md")
Json = dict[str, Any]

HEAD = """\
# The HTTP interface, operation by operation

`python docs/api_page.py` writes this page from `/openapi.json`, and a test holds them together.
What the operations mean is told in [http.md](http.md), the fields of a plan request in
[options.md](options.md). Problems (RFC 9457) are `application/problem+json`. Paths without `/v1`
stand for the first version. Exchanges are recorded ones; of lists the first two entries are shown.
"""
TOLD_ELSEWHERE = {"PlanRequest"}
"""Bodies whose fields options.md has."""
SHOWN_AT_MOST = 600
"""Characters of an example: plans and profiles go on and on."""
LINES_AT_MOST = 1000
"""Of a text."""

PROFILE: Json = {
    "schema_version": 1,
    "name": "tiny",
    "architecture": {
        "layers": 1,
        "query_heads": 4,
        "kv_heads": 2,
        "head_dim": 64,
        "hidden_size": 256,
        "dtype": "bfloat16",
    },
    "heads": {"form": "budgets", "tokens": [[256, 1024, 512, 2048]]},
    "source": "made up for the documentation",
    "synthetic": True,
}
JSON = {"Content-Type": "application/json"}
NODE: Json = {"node_id": "node-a", "boot_id": "0b1c", "devices": ["h200", "h200"]}


class Recorder:
    """Asks a service, and notes one exchange of every operation."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._named = {
            (method.upper(), path): operation["operationId"]
            for method, path, operation in operations(client.get("/openapi.json").json())
        }
        self.exchanges: dict[str, Json] = {}
        self.problems: Json = {}

    def ask(
        self, method: str, path: str, body: Any = None, query: Any = None, **names: Any
    ) -> httpx.Response:
        """Ask; `names` are the path's parameters, with `headers` those of the request."""
        headers = names.pop("headers", {})
        answer = self._client.request(
            method, path.format(**names), json=body, params=query, headers=headers
        )
        noted = self.exchanges.setdefault(self._named[method, path], {"responses": {}})
        if answer.is_success:
            given = {**names, **(query or {}), **{k.lower(): v for k, v in headers.items()}}
            noted["parameters"] = noted.get("parameters", {}) | given
            if body is not None:
                noted.setdefault("request", body)
            if answer.content:
                noted["responses"][str(answer.status_code)] = _said(answer)
        else:
            self.problems[str(answer.status_code)] = answer.json()
        return answer


def _said(answer: httpx.Response) -> Any:
    if answer.headers["content-type"].startswith("application/json"):
        said = answer.json()
        short = isinstance(said, dict)
        return {k: v[:2] if _is_list(v) else v for k, v in said.items()} if short else said
    if answer.headers["content-type"].startswith("image/"):
        return f"{answer.text[:100]} ..."
    return answer.text[:LINES_AT_MOST].rpartition("\n\n" if "\n\n" in answer.text else "\n")[0]


def _is_list(value: Any) -> bool:
    """Whether to show but the first of them: lists of things with names."""
    return isinstance(value, list) and len(value) > 2 and isinstance(value[0], dict)


def record() -> Json:
    """An exchange of every operation, and a problem of every kind that is easily had."""
    with TemporaryDirectory() as folder:
        settings = Settings(
            database_url=f"sqlite:///{folder}/hplb.db", api_key=None, max_body_bytes=200_000
        )
        with TestClient(create_app(settings), "http://127.0.0.1") as client:
            recorder = Recorder(client)
            _converse(recorder, client)
    return {"operations": recorder.exchanges, "problems": recorder.problems}


def _converse(recorder: Recorder, client: TestClient) -> None:
    ask = recorder.ask
    for path in ("/healthz", "/readyz", "/version"):
        ask("GET", path)
    ask("PUT", "/v1/profiles/{name}", PROFILE, name="tiny")
    ask("GET", "/v1/profiles/{name}", name="tiny")
    ask("GET", "/v1/profiles")
    ask("GET", "/v1/cost-models")
    wanted = {"profile": "tiny", "gpus": 2, "context_tokens": 4096, "time_limit_s": 2.0}
    later = {"Prefer": "respond-async"}
    ask("POST", "/v1/plan/validate", wanted)
    solve = ask("POST", "/v1/plan", wanted, headers=later).json()["id"]
    ask("GET", "/v1/solves")
    ask("GET", "/v1/plans/{plan_id}/events", plan_id=solve)
    ask("GET", "/v1/plans/{plan_id}", plan_id=solve)
    made = ask("POST", "/v1/plan", wanted)
    plan = Plan.parse(made.content, "the answer")
    ask("GET", "/v1/plans/{plan_id}", plan_id=plan.id)
    ask("GET", "/v1/plans", query={"limit": 2})
    beside = ask("POST", "/v1/plan", {**wanted, "method": "contiguous"}).json()["id"]
    both = {"plan": [beside, plan.id]}
    ask("GET", "/v1/comparison", query=both)
    ask("GET", "/v1/comparison/picture", query=both)
    ask("GET", "/v1/plans/{plan_id}/picture", plan_id=plan.id)
    ask("POST", "/v1/plans/{plan_id}/cancel", plan_id=solve)
    ask("POST", "/v1/nodes", {**NODE, "backend": "triton", "versions": {"torch": "2.11.0"}})
    ask("GET", "/v1/nodes")
    live = {"plan_id": plan.id, "nodes": ["node-a"], "rounds": 1, "refine": False}
    ask("PUT", "/v1/deployments/{name}", live, name="prod")
    ask("GET", "/v1/nodes/{node_id}/assignment", node_id="node-a", query={"wait_s": 0})
    active = {"deployment": "prod", "generation": 1}
    renewal = {"boot_id": NODE["boot_id"], "active": active, "error": None}
    ask("PUT", "/v1/nodes/{node_id}/lease", renewal, node_id="node-a")
    batch = _batch(plan)
    ask("POST", "/v1/measurements", batch)
    ask("GET", "/v1/deployments/{name}", name="prod")
    ask("GET", "/v1/deployments/{name}/picture", name="prod")
    ask("GET", "/v1/deployments")
    ask("GET", "/metrics")
    ask("PUT", "/v1/profiles/{name}", PROFILE, name="small")
    ask("GET", "/v1/profiles/{name}", name="nobody")
    stale = {**batch, "batch_id": "late", "generation": 0}
    ask("POST", "/v1/measurements", stale)
    for status, content in ((400, b"{"), (413, b" " * 300_000)):
        answer = client.post("/v1/plan", content=content, headers=JSON)
        assert answer.status_code == status
        recorder.problems[str(status)] = answer.json()


def _batch(plan: Plan) -> Json:
    """A round as a node would report it, a little slower than the catalogue's rates."""
    rates = catalogue_rates(plan.devices, plan.workload.phase)
    samples = []
    for device, work in enumerate(shard_work(plan, 0)):
        counts = {name: float(n) for name, n in zip(FEATURES, work, strict=True) if n}
        per = rates[plan.devices[device]].seconds_per
        seconds = 1.2 * sum(per[name] * count for name, count in counts.items())
        samples.append({"layer": 0, "device": device, "seconds": seconds, "work": counts})
    of = {"deployment": "prod", "plan_id": plan.id, "generation": 1, "node_id": "node-a"}
    return {"batch_id": "node-a-1", **of, "timing": "alone", "samples": samples}


def page() -> str:
    """The whole page."""
    with TemporaryDirectory() as folder:
        settings = Settings(database_url=f"sqlite:///{folder}/hplb.db", api_key=None)
        document = create_app(settings).openapi()
    schemas = document["components"]["schemas"]
    lines, shown = [HEAD], dict.fromkeys(("ProblemBody", "FieldError"))
    for tag, text in TAGS.items():
        lines += [f"## {tag.capitalize()}", "", text, ""]
        for method, path, operation in operations(document):
            if operation["tags"] == [tag]:
                lines += _operation(method, path, operation)
                shown |= dict.fromkeys(_bodies(operation))
    lines += [
        "## Bodies",
        "",
        "Fields without a default are required, unless they are answers.",
        "",
    ]
    waiting = [name for name in shown if name not in TOLD_ELSEWHERE]
    for name in waiting:
        lines += _body(name, schemas[name])
        # What it consists of comes after all that operations name.
        parts = dict.fromkeys(_references(schemas[name]))
        waiting += [part for part in parts if part not in waiting]
    return "\n".join(lines).rstrip() + "\n"


def _operation(method: str, path: str, operation: Json) -> list[str]:
    lines = [f"### {operation['operationId']}", "", f"`{method.upper()} {path}`", ""]
    lines += [_line(operation["description"]), ""]
    example, exchange = [], ""
    rows = []
    for each in operation.get("parameters", ()):
        mark = " (required)" if each.get("required") and each["in"] != "path" else ""
        told = _line(each.get("description", ""))
        rows.append((f"`{each['name']}`", each["in"] + mark, _kind(each["schema"]), told))
    lines += table(("parameter", "in", "type", "meaning"), rows)
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        lines += [f"Body: {_kind(content['schema'])}.", ""]
        example = ["```json", _json(content["example"]), "```", ""]
        exchange = "asked and "
    rows, refused = [], []
    for status, answer in operation["responses"].items():
        ((kind, content),) = answer.get("content", {"": {}}).items()
        if kind == "application/problem+json":
            refused.append(status)
            continue
        schema = content.get("schema")
        what = _kind(schema) if schema else ""
        told = _line(answer["description"]).replace("Successful Response", "")
        rows.append((status, what or (f"`{kind}`" if kind else ""), told))
        if "example" in content and (status == "200" or len(rows) == 1):
            shown = content["example"]
            text = shown.rstrip() if isinstance(shown, str) else _json(shown)
            example += [f"```{'text' if isinstance(shown, str) else 'json'}", text, "```", ""]
    lines += table(("status", "body", "what"), rows)
    if refused:
        lines += [f"Problems: {', '.join(refused)}.", ""]
    return lines + ([f"{exchange}answered:".capitalize(), "", *example] if example else [])


def _references(part: Any) -> Iterator[str]:
    """Names of the bodies that a schema is made of."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].rpartition("/")[2]
        for each in part.values():
            yield from _references(each)
    elif isinstance(part, list):
        for each in part:
            yield from _references(each)


def _bodies(operation: Json) -> Iterator[str]:
    """Names of the bodies an operation takes and gives."""
    parts = [operation.get("requestBody", {}), *operation["responses"].values()]
    for part in parts:
        for content in part.get("content", {}).values():
            yield from _references(content.get("schema", {}))


def _body(name: str, schema: Json) -> list[str]:
    rows = []
    for field, each in schema.get("properties", {}).items():
        default = each.get("default")
        shown = "" if "default" not in each else f"`{json.dumps(default)}`"
        rows.append((f"`{field}`", _kind(each), shown, _line(each.get("description", ""))))
    about = [_line(schema["description"]), ""] if "description" in schema else []
    return [f"### {name}", "", *about, *table(("field", "type", "default", "meaning"), rows)]


def _kind(schema: Json) -> str:
    """What a value is, in a word or two."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](options.md)" if name in TOLD_ELSEWHERE else name
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(each) for each in schema[several]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}" if "items" in schema else "list"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_kind(schema['additionalProperties'])}"
        case str(kind):
            return kind
    return ""


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _json(value: Any) -> str:
    text = json.dumps(value)
    cut = len(text) > SHOWN_AT_MOST
    return f"{text[:SHOWN_AT_MOST]} ..." if cut else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it would")
    parser.add_argument("--record", action="store_true", help="write the examples, not the page")
    asked = parser.parse_args()
    if asked.record:
        EXAMPLES.write_text(json.dumps(record(), indent=1) + "\n")
        return
    wanted, said = page(), PAGE.read_text() if PAGE.exists() else ""
    if not asked.check:
        PAGE.write_text(wanted)
    elif wanted != said:
        sys.exit(f"{PAGE}: not what the service's document says")


if __name__ == "__main__":
    main()
