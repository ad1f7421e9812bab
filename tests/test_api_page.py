"""The OpenAPI document is complete and true, and docs/api.md is what it says."""

import json
from types import ModuleType
from typing import Any

import jsonschema_rs
import pytest

from api.app import create_app
from api.document import TAGS, operations
from api.settings import Settings
from profiles.errors import HplbError
from profiles.model import ModelProfile
from tests import scripts

PROBLEM = "application/problem+json"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    folder = tmp_path_factory.mktemp("document")
    return create_app(Settings(database_url=f"sqlite:///{folder / 'x.db'}")).openapi()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return scripts.load("docs/api_page.py")


def test_the_page_is_what_the_document_says(script: ModuleType) -> None:
    """Run `python docs/api_page.py` where this fails."""
    assert script.PAGE.read_text() == script.page()


def test_every_operation_has_a_name_a_tag_and_a_description(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for _, path, operation in operations(document):
        assert operation["operationId"].replace("_", "").isalpha(), operation["operationId"]
        assert set(operation["tags"]) < set(TAGS), path
        assert operation["description"], path


def test_paths_have_their_version(document: Json) -> None:
    bare = {path for path in document["paths"] if not path.startswith("/v1/")}
    assert bare == {"/healthz", "/readyz", "/metrics", "/version"}


def test_every_operation_has_examples_that_its_schemas_allow(document: Json) -> None:
    """Run `python docs/api_page.py --record` where one is missing or old."""
    for _, path, operation in operations(document):
        name = operation["operationId"]
        if "requestBody" in operation:
            _check(document, operation["requestBody"]["content"]["application/json"], name)
        shown = 0
        for status, answer in operation["responses"].items():
            for kind, content in answer.get("content", {}).items():
                if "example" in content:
                    _check(document, content, f"{name} {status}")
                    shown += kind != PROBLEM
        answers = [r for code, r in operation["responses"].items() if code < "300"]
        assert shown or not any("content" in answer for answer in answers), path


def _check(document: Json, content: Json, where: str) -> None:
    schema = {**content["schema"], "components": document["components"]}
    errors = [str(e) for e in jsonschema_rs.validator_for(schema).iter_errors(content["example"])]
    assert not errors, f"{where}: {errors[0]}"


def test_every_refusal_is_a_problem(document: Json) -> None:
    for _, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400":
                assert set(answer["content"]) == {PROBLEM}, (path, status)
                assert answer["content"][PROBLEM]["schema"]["$ref"].endswith("/ProblemBody")
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_what_tells_forms_apart_is_required(document: Json) -> None:
    """As the service has it: a body without it is refused."""
    schemas = document["components"]["schemas"]
    unions = {
        (name, field): union["discriminator"]
        for name, schema in schemas.items()
        for field, union in schema.get("properties", {}).items()
        if isinstance(union.get("discriminator"), dict)
    }
    assert ("ModelProfile", "heads") in unions
    for where, union in unions.items():
        for reference in union["mapping"].values():
            form = schemas[reference.rpartition("/")[2]]
            assert union["propertyName"] in form["required"], (where, reference)
    put = document["paths"]["/v1/profiles/{name}"]["put"]["requestBody"]["content"]
    profile = json.loads(json.dumps(put["application/json"]["example"]))
    ModelProfile.parse(json.dumps(profile), "the example")
    del profile["heads"]["form"]
    with pytest.raises(HplbError, match="heads"):
        ModelProfile.parse(json.dumps(profile), "without a form")
    with pytest.raises(AssertionError, match="form"):
        _check(document, {**put["application/json"], "example": profile}, "without a form")
