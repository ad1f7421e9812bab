"""Opening a database: the schema, and everything a path or a file can be wrong with."""

import json
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from api.store import plan_store
from api.store.database import Database, upgrade
from api.store.session import StoreError
from api.store.tables import ProfileContent, StoredPlan, StoredSolve, Table
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.cost.roofline import roofline
from solver import plan


def test_migrations_make_exactly_the_models_schema(database_url: str) -> None:
    Database.open(database_url).close()
    with create_engine(database_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_migrations_start_from_nothing(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.begin() as connection:
        upgrade(connection)
        tables = set(inspect(connection).get_table_names())
    assert tables == {*Table.metadata.tables, "alembic_version"}


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hplb.db'}"
    Database.open(url).close()
    Database.open(url).close()


def test_answers_and_origins_come_out_of_what_0001_kept_as_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with create_engine(url).begin() as connection:
        upgrade(connection, "0001")
        for statement in (
            "INSERT INTO profile_contents VALUES ('p', '{}')",
            "INSERT INTO plans VALUES ('a', '{}', '{}', 1), ('b', '{}', '{}', 2)",
            *(
                "INSERT INTO plan_requests (digest, plan_id, profile_digest, options, created_at) "
                f"VALUES ('{digest}', '{plan}', 'p', '\"{digest}\"', {at})"
                for digest, plan, at in (
                    (1, "a", 5),
                    (2, "a", 7),
                    (3, "a", 6),
                    (4, "b", 7),
                    (5, "b", 7),
                )
            ),
        ):
            connection.execute(text(statement))
    with Database.open(url).read() as session:
        answers = session.execute(text("SELECT digest, plan_id FROM answers ORDER BY 1"))
        assert answers.all() == [("1", "a"), ("2", "a"), ("3", "a"), ("4", "b"), ("5", "b")]
        origins = session.execute(text("SELECT plan_id, options FROM plan_origins ORDER BY 1"))
        assert origins.all() == [("a", '"2"'), ("b", '"4"')]


def test_a_deployment_from_before_drift_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with create_engine(url).begin() as connection:
        upgrade(connection, "0002")
        connection.execute(text("INSERT INTO plans VALUES ('a', '{}', '{}', 1)"))
        columns = {c["name"]: c for c in inspect(connection).get_columns("deployments")}
        values = {"name": "d", "plan_id": "a", "generation": 3, "refine_state": "{}"}
        row = {
            name: values.get(name, 1 if not c["nullable"] else None) for name, c in columns.items()
        }
        named = ", ".join(f":{name}" for name in row)
        connection.execute(
            text(f"INSERT INTO deployments ({', '.join(row)}) VALUES ({named})"), row
        )
    with Database.open(url).read() as session:
        kept = session.execute(text("SELECT name, generation, every_s, drift FROM deployments"))
        assert kept.all() == [("d", 3, None, None)]
        assert session.execute(text("SELECT count(*) FROM recoveries")).scalar() == 0


def test_rates_and_samples_from_before_tiles_were_told_apart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    now = roofline(device_profile("h200"), "prefill")
    old = {n: s for n, s in now.seconds_per.items() if "tile" not in n and n != "sampled_flops"}
    tiles: list[dict[str, float]] = [
        {"tile_flops": 2e-15},
        {"tile_flops": 2e-15, "sparse_tile_flops": 1e-15},
    ]
    with create_engine(url).begin() as connection:
        upgrade(connection, "0003")
        connection.execute(text("PRAGMA foreign_keys = OFF"))
        for kinds, std in zip(tiles, (False, True), strict=True):
            fields = now.model_dump() | {"seconds_per": old | kinds}
            fields["std"] = old | kinds if std else None
            connection.execute(
                text(
                    "INSERT INTO rates (device, phase, version, body, created_at) "
                    "VALUES ('h200', 'prefill', 'v', :body, 1)"
                ),
                {"body": json.dumps(fields)},
            )
        connection.execute(
            text(
                "INSERT INTO samples (batch, layer, device, seconds, work, device_type, phase, "
                "context_tokens, measured_at) VALUES (1, 0, 0, 0.5, '[1, 2]', 'h200', 'prefill', "
                "64, 1)"
            )
        )
    with create_engine(url).begin() as connection:
        upgrade(connection, "0004")
        bodies = connection.scalars(text("SELECT body FROM rates ORDER BY id")).all()
        assert connection.execute(text("SELECT seconds, work FROM samples")).all() == [(0.5, "{}")]
    for body, gathered in zip(bodies, (2e-15, 3e-15), strict=True):
        rates = Rates.model_validate_json(body)
        told_apart = {"gathered_tile_flops": gathered, "sampled_flops": 2e-15}
        expected = old | told_apart | {"dense_tile_flops": 2e-15}
        assert rates.seconds_per == pytest.approx(expected, rel=1e-12)
        assert rates.std is None or rates.std == pytest.approx(expected, rel=1e-12)


def test_sqlite_is_durable_and_keeps_its_references(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'hplb.db'}")
    with database.read() as session:
        pragmas = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}


def test_a_row_is_put_in_place_of_what_has_its_key(database_url: str) -> None:
    database = Database.open(database_url)
    of = {"digest": "d", "profile_digest": "p", "client": "c", "urgency": 3}
    with database.write() as session:
        session.put(ProfileContent(digest="p", body="{}"))
    for options, at in (({"a": [1]}, 1.0), ({}, 2.0)):
        with database.write() as session:
            session.put(StoredSolve(**of, options=options, asked_at=at))
        with database.read() as session:
            row = session.get_one(StoredSolve, "d")
            assert (row.options, row.asked_at, row.client) == (options, at, "c")
    database.close()


def test_an_exception_undoes_a_transaction(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'hplb.db'}")
    insert = text("INSERT INTO profile_contents VALUES ('d', 'b')")
    with suppress(RuntimeError), database.write() as session:
        session.execute(insert)
        raise RuntimeError
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM profile_contents")).scalar() == 0


def _a_folder(path: Path) -> None:
    path.mkdir()


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, but it is long enough to be taken for one" * 100)


def _truncated(path: Path) -> None:
    Database.open(f"sqlite:///{path}").close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _scribbled_over(path: Path) -> None:
    Database.open(f"sqlite:///{path}").close()
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    path.write_bytes(bytes(data))


def _from_the_future(path: Path) -> None:
    Database.open(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_a_folder, "hplb.db is a folder"),
        (_no_database, "not a database"),
        (_truncated, "malformed|damaged|disk image"),
        (_scribbled_over, "malformed|damaged|disk image"),
        (_from_the_future, "not made by this version"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, make: object, says: str
) -> None:
    path = tmp_path / "hplb.db"
    make(path)  # type: ignore[operator]
    with pytest.raises(StoreError, match=says) as caught:
        Database.open(f"sqlite:///{path}")
    assert "\n" not in str(caught.value)
    assert "hplb.db" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "URL"),
        ("hplb.db", "URL"),
        ("oracle9://x/y", "URL"),
        ("sqlite:////no/such/folder/hplb.db", "there is no folder /no/such/folder"),
    ],
)
def test_a_url_that_cannot_be_used_too(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Database.open(url)


@pytest.mark.slow
def test_a_missing_driver_is_named() -> None:
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(StoreError, match=r"postgres"):
            Database.open("postgresql://nobody@127.0.0.1:1/none")
    else:
        with pytest.raises(StoreError, match="cannot be used"):
            Database.open("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")


def test_each_database_has_its_own_timings_of_an_equal_plan(tmp_path: Path) -> None:
    """Which are not among what a plan's id is of."""
    made = plan("llama-3.1-8b-synthetic", gpus=2, context_tokens=1024, method="contiguous")
    for seconds in (1.0, 2.0):
        kept = made.model_copy(update={"solve_s": seconds})
        assert kept.id == made.id
        database = Database.open(f"sqlite:///{tmp_path / str(seconds)}")
        with database.write() as session:
            row = StoredPlan(id=kept.id, body=kept.model_dump_json(), summary={}, created_at=1)
            session.add(row)
        for _ in range(2):
            with database.read() as session:
                assert plan_store.load(session, kept.id).solve_s == seconds
        database.close()
