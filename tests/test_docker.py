"""The images and the compose file, as far as they can be checked without a container engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_examples import check_hplb

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
INSTRUCTIONS = {
    *("FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE"),
    *("HEALTHCHECK", "CMD", "ENTRYPOINT", "VOLUME", "ENV"),
}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return found


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined and comments left out."""
    text = re.sub(r"\\\n", " ", file.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


@pytest.mark.parametrize("file", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda f: f.name)
def test_dockerfiles_are_well_formed(file: Path) -> None:
    steps = instructions(file)
    assert steps[0][0] == "FROM"
    assert {name for name, _ in steps} <= INSTRUCTIONS
    assert "USER" in {name for name, _ in steps}
    for name, arguments in steps:
        if name == "COPY":
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source


def test_what_the_images_run_is_a_command_with_these_flags() -> None:
    for file in sorted(DOCKER.glob("*.Dockerfile")):
        steps = dict(instructions(file))
        words = [*json.loads(steps.get("ENTRYPOINT", "[]")), *json.loads(steps["CMD"])]
        assert words[0] == "hplb"
        check_hplb(words[1:], "")


def test_the_planner_image_has_no_torch() -> None:
    text = (DOCKER / "planner.Dockerfile").read_text()
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    assert not any("torch" in line or "executor" in line for line in installs)


def test_compose_is_as_the_compose_specification_says() -> None:
    """By a parser that knows every key; `docker compose config` is what it stands in for."""
    parser = pytest.importorskip("compose_spec").PyCompose
    text = (DOCKER / "compose.yaml").read_text()
    assert parser.from_yaml(text).to_spec().services.keys() == compose()["services"].keys()
    with pytest.raises(ValueError, match="cap_drops"):
        parser.from_yaml(text.replace("cap_drop:", "cap_drops:"))


def test_compose_names_services_images_and_volumes_that_exist() -> None:
    file = compose()
    services = file["services"]
    assert set(services) == {"database", "planner", "executor", "prometheus"}
    for name, service in services.items():
        assert ("image" in service) != ("build" in service), name
        if "build" in service:
            folder = (DOCKER / service["build"]["context"]).resolve()
            assert (folder / service["build"]["dockerfile"]).is_file()
        for other in service.get("depends_on", {}):
            assert other in services
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (DOCKER / source).exists() if source.startswith(".") else True
            assert exists, volume
            assert source.startswith(".") or source in file["volumes"], volume


def test_ports_are_published_on_loopback_only_and_a_key_is_demanded() -> None:
    services = compose()["services"]
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    assert services["planner"]["environment"]["HPLB_API_KEY"].startswith("${HPLB_API_KEY:?")


def test_prometheus_scrapes_the_planner() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == ["planner:8000"]


@pytest.mark.parametrize("file", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda f: f.name)
def test_images_run_as_a_user_by_number_and_start_from_an_exact_tag(file: Path) -> None:
    steps = dict(instructions(file))
    assert EXACT.search(steps["FROM"])
    assert int(steps["USER"]) > 0


def test_compose_has_exact_tags_and_services_of_ours_cannot_write_their_root() -> None:
    for name, service in compose()["services"].items():
        if "image" in service:
            assert EXACT.search(service["image"]), name
        else:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert any(place.split(":")[0] == "/tmp" for place in service["tmpfs"]), name


EXACT = re.compile(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9-]+)?$")
