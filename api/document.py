"""The OpenAPI document as its readers need it: FastAPI's, completed.

Paths have their version, operations short names, an example each (`examples.json`, recorded from a
running service by `docs/api_page.py --record`) and what the middleware may refuse them with,
problems their media type, and what tells the forms of a union apart is required.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.auth import HEALTH
from api.client.bodies import Incumbent, ProblemBody, SolveCut, SolveEnd
from api.client.wire import VERSION
from api.problems import MEDIA_TYPE, refusals

Json = dict[str, Any]

EXAMPLES = Path(__file__).with_name("examples.json")
UNVERSIONED = HEALTH | {"/metrics", "/version"}
"""Of the process, whatever the version of what it serves: documented without one."""
TAGS = {
    "plans": "Plans: made, followed while they are, and kept.",
    "profiles": "Models' profiles, and the rates that costs are computed with.",
    "deployments": "Which plan is live on which nodes, and how it does.",
    "nodes": "Executors: who they are, that they live, what they are to run.",
    "measurements": "What nodes measured.",
    "operations": "Whether the service is well.",
}
BESIDE: tuple[type[BaseModel], ...] = (ProblemBody, Incumbent, SolveEnd, SolveCut)
"""Bodies that no route names: problems, and the data of a solve's events."""


def operation_id(route: APIRoute) -> str:
    """The name of the route's function."""
    return route.name


def complete(document: Json) -> Json:
    """The document, completed in place."""
    reference = "#/components/schemas/{model}"
    _, beside = models_json_schema(
        [(kind, "serialization") for kind in BESIDE], ref_template=reference
    )
    document["components"]["schemas"] |= beside["$defs"]
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    _require_tags(document)
    examples = json.loads(EXAMPLES.read_text())
    # The middleware is what asks for keys, where there are any; this tells readers.
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    for _, path, operation in operations(document):
        told = refusals(421) if path in HEALTH else refusals(401, 403, 421, 503)
        if "requestBody" in operation:
            told |= refusals(408)
        if path in HEALTH:
            operation["security"] = []
        operation["responses"] |= {str(status): answer for status, answer in told.items()}
        _show(operation, examples["operations"].get(operation["operationId"], {}))
        for status, answer in operation["responses"].items():
            problem = examples["problems"].get(status)
            if problem and MEDIA_TYPE in answer.get("content", {}):
                answer["content"] = {
                    MEDIA_TYPE: {**answer["content"][MEDIA_TYPE], "example": problem}
                }
    document["paths"] = {
        path if path in UNVERSIONED else VERSION + path: item
        for path, item in document["paths"].items()
    }
    return document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """(method, path, operation) of all there are."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def _require_tags(document: Json) -> None:
    """Of unions, wherever they are: a body that leaves the tag out is refused."""

    def walk(part: Any) -> Iterator[Json]:
        if isinstance(part, dict):
            yield part
            for each in part.values():
                yield from walk(each)
        elif isinstance(part, list):
            for each in part:
                yield from walk(each)

    for union in walk(document):
        tag = union.get("discriminator")
        if not isinstance(tag, dict):
            continue
        name: str = tag["propertyName"]
        for reference in tag["mapping"].values():
            form = document["components"]["schemas"][reference.rpartition("/")[2]]
            form["required"] = [name, *(n for n in form.get("required", ()) if n != name)]


def _show(operation: Json, example: Json) -> None:
    """Put an exchange's parts where the document has them."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in example.get("parameters", {}):
            parameter["example"] = example["parameters"][parameter["name"]]
    if "request" in example:
        operation["requestBody"]["content"]["application/json"]["example"] = example["request"]
    for status, body in example.get("responses", {}).items():
        (content,) = operation["responses"][status]["content"].values()
        content["example"] = body
