"""Alerts and the dashboard ask for metrics that a running service has; promtool on the rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.settings import Settings

DOCKER = Path(__file__).resolve().parents[1] / "docker"
ALERTS, TRIED = DOCKER / "alerts.yaml", DOCKER / "alerts_test.yaml"
DASHBOARD = DOCKER / "dashboard.json"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
SCRAPED_BY_ITSELF = {"up"}
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: Debian's package prometheus has it"
)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every sample's name that the service can have."""
    folder = tmp_path_factory.mktemp("service")
    settings = Settings(database_url=f"sqlite:///{folder / 'x.db'}", api_key=None)
    with TestClient(create_app(settings), "http://127.0.0.1") as client:
        told = text_string_to_metric_families(client.get("/metrics").text)
        return {family.name + suffix for family in told for suffix in SUFFIXES[family.type]}


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _asked() -> dict[str, str]:
    """Expressions by where they stand."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    drawn = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels
        for target in panel["targets"]
    }
    return drawn | {rule["alert"]: rule["expr"] for rule in _rules()}


def _metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:hplb_\w+|process_\w+|up(?=\{))", expression))


@pytest.mark.parametrize("where", sorted(_asked()))
def test_what_is_asked_for_is_there(there: set[str], where: str) -> None:
    names = _metrics(_asked()[where])
    assert names
    assert names <= there | SCRAPED_BY_ITSELF


def test_panels_are_apart_and_alerts_say_what_they_mean() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    for rule in _rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert "for" in rule


def test_every_alert_is_tried() -> None:
    tests = yaml.safe_load(TRIED.read_text())["tests"]
    fired = {t["alertname"] for test in tests for t in test["alert_rule_test"] if "exp_alerts" in t}
    assert fired == {rule["alert"] for rule in _rules()}


@promtool
@pytest.mark.parametrize(
    "arguments", [["check", "rules", ALERTS], ["test", "rules", TRIED]], ids=["check", "test"]
)
def test_promtool_agrees(arguments: list[object]) -> None:
    ended = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "SUCCESS" in ended.stdout


@promtool
def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": expression.replace('"$deployment"', '".*"')}
        for index, expression in enumerate(_asked().values())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    ended = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
