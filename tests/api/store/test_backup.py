"""A backup holds everything, of whichever schema, and a damaged one changes nothing."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from api.cli import app
from api.store.backup import back_up, restore
from api.store.database import Database
from api.store.session import StoreError
from api.store.tables import Table
from tests.api.engine import Device
from tests.api.world import World, profile

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def filled(world: World) -> Database:
    """A database with rows in most tables."""
    world.client.put("/profiles/mine", json=profile("mine"))
    plan = world.plan(profile="mine")
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    for _ in range(2):
        assert world.post(world.batch(plan, view, "a", [0, 1])).status_code == 200
    served = world.plan(device_type="cpu", method=..., placement={"slots": 3, "divisible": True})
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    view = world.deploy(served, ["e-0", "e-1"], "engine", refine=False)
    device = Device(served, recovers=lambda _phase, _layer, rows: np.full(len(rows.head), 0.5))
    for batch in device.batches(view, [[(0, 300)]]):
        assert world.post(batch).status_code == 200
    world.settle()
    return world.service.database


_made: list[bytes] = []


@pytest.fixture
def backup(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """Of such a database, made once."""
    if not _made:
        back_up(request.getfixturevalue("filled"), tmp_path / "made.gz")
        _made.append((tmp_path / "made.gz").read_bytes())
    return _made[0]


def _rows(database: Database) -> Rows:
    with database.read() as session:
        return {
            name: sorted(map(repr, session.execute(select(table))))  # type: ignore[misc]
            for name, table in Table.metadata.tables.items()
        }


def _empty(tmp_path: Path, name: str = "other.db") -> Database:
    return Database.open(f"sqlite:///{tmp_path / name}")


def test_everything_comes_back(filled: Database, tmp_path: Path) -> None:
    counts = back_up(filled, tmp_path / "backup.gz")
    assert set(counts) >= {
        "plans",
        "rounds",
        "steps",
        "batches",
        "profiles",
        "deployments",
        "nodes",
    }
    other = _empty(tmp_path)
    assert restore(other, tmp_path / "backup.gz") == counts
    assert _rows(other) == _rows(filled)
    again = back_up(other, tmp_path / "again.gz")
    assert again == counts
    first, second = ((tmp_path / name).read_bytes() for name in ("backup.gz", "again.gz"))
    assert gzip.decompress(first) == gzip.decompress(second)


def test_one_of_an_earlier_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    lines = [
        {"format": "hplb backup 1", "schema": "0001"},
        {"table": "plans", "columns": ["id", "body", "summary", "created_at"]},
        ["p", "{}", {"id": "p"}, 1.5],
        {"rows": 1},
    ]
    path = tmp_path / "old.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    database = _empty(tmp_path)
    assert restore(database, path) == {"plans": 1}
    plans = _rows(database)["plans"]
    assert len(plans) == 1


def test_only_an_empty_database_is_restored_into(filled: Database, tmp_path: Path) -> None:
    back_up(filled, tmp_path / "backup.gz")
    before = _rows(filled)
    with pytest.raises(StoreError, match="holds rows already"):
        restore(filled, tmp_path / "backup.gz")
    assert _rows(filled) == before


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _without_end(content: bytes) -> bytes:
    return gzip.compress(b"".join(gzip.decompress(content).splitlines(True)[:-1]))


def _one_row_less(content: bytes) -> bytes:
    lines = gzip.decompress(content).splitlines(True)
    return gzip.compress(b"".join([*lines[:-2], lines[-1]]))


def _later(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content).replace(b'"schema":"0', b'"schema":"9', 1))


def _reference_broken(content: bytes) -> bytes:
    lines = gzip.decompress(content).splitlines(True)
    gone = next(i for i, line in enumerate(lines) if b'{"table":"plans"' in line) + 1
    end = json.dumps({"rows": json.loads(lines[-1])["rows"] - 1}).encode()
    return gzip.compress(b"".join([*lines[:gone], *lines[gone + 1 : -1], end]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, "damaged"),
        (_without_end, "cut off"),
        (_one_row_less, "rows, not"),
        (_later, "later version"),
        (_reference_broken, "does not fit"),
        (lambda _: b"no backup", "cannot be read"),
        (lambda _: gzip.compress(b"{}\n"), "no backup"),
        (lambda _: gzip.compress(b"[1]\n"), "no backup"),
        (lambda _: gzip.compress(b"x\n"), "damaged"),
    ],
)
def test_a_damaged_one_changes_nothing(
    backup: bytes, tmp_path: Path, damage: Any, says: str
) -> None:
    path = tmp_path / "backup.gz"
    path.write_bytes(damage(backup))
    other = _empty(tmp_path)
    with pytest.raises(StoreError, match=says):
        restore(other, path)
    assert not any(_rows(other).values())


def test_by_command(filled: Database, tmp_path: Path) -> None:
    path, run = str(tmp_path / "backup.gz"), CliRunner().invoke
    source = filled._readers.url.render_as_string(hide_password=False)
    made = run(app, ["backup", path, "--database-url", source])
    assert made.exit_code == 0, made.output
    assert "2 plans" in made.output
    target = ["--database-url", f"sqlite:///{tmp_path / 'new.db'}"]
    restored = run(app, ["restore", path, *target])
    assert restored.output == made.output
    refused = run(app, ["restore", path, *target])
    assert refused.exit_code == 2
    assert "holds rows already" in refused.output
    assert run(app, ["backup", "/no/such/folder/x.gz", "--database-url", source]).exit_code == 2
