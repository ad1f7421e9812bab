"""The writer: together where it can be, each by itself where one fails, again where all do."""

from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import select, text

from api.store.database import Database
from api.store.session import ConflictError, Session, UnavailableError
from api.store.tables import ProfileContent
from api.store.write_queue import MOST_WAITING, Turn, WriteQueue


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database.open(database_url)
    yield database
    database.close()


def _keep(session: Session, names: list[str]) -> list[str]:
    for name in names:
        if name == "bad":
            raise ValueError(name)
        session.add(ProfileContent(digest=name, body="{}"))
    session.flush()
    return names


def _kept(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(session.scalars(select(ProfileContent.digest)))


@contextmanager
def _writer_held(database: Database) -> Iterator[None]:
    """What is submitted meanwhile waits, and is then written together."""
    entered, leave = Event(), Event()

    def hold(_: Session, items: list[None]) -> list[None]:
        entered.set()
        leave.wait(30)
        return items

    held = database.submit(hold, None)
    assert entered.wait(30)
    yield
    leave.set()
    held.result(30)


def test_what_waits_is_written_in_one_call(database: Database) -> None:
    calls = []

    def keep(session: Session, names: list[str]) -> list[str]:
        calls.append(list(names))
        return _keep(session, names)

    with _writer_held(database):
        waiting = [database.submit(keep, name) for name in "abc"]
    assert [each.result(30) for each in waiting] == ["a", "b", "c"]
    assert calls == [["a", "b", "c"]]
    assert _kept(database) == ["a", "b", "c"]


def test_one_that_fails_takes_none_with_it(database: Database) -> None:
    with _writer_held(database):
        waiting = [database.submit(_keep, name) for name in ("a", "bad", "b", "a")]
    assert [waiting[0].result(30), waiting[2].result(30)] == ["a", "b"]
    with pytest.raises(ValueError, match="bad"):
        waiting[1].result(30)
    with pytest.raises(ConflictError):
        waiting[3].result(30)
    assert _kept(database) == ["a", "b"]


def test_one_that_nobody_waits_for_any_more_is_not_begun(database: Database) -> None:
    with _writer_held(database):
        gone = database.submit(_keep, "a")
        assert gone.cancel()
    database.submit(_keep, "b").result(30)
    with pytest.raises(CancelledError):
        gone.result(0)
    assert _kept(database) == ["b"]


class _Away:
    """Transactions of a database that is away as often as said."""

    def __init__(self, database: Database, times: int) -> None:
        self.database, self.times, self.tried = database, times, Event()

    @contextmanager
    def __call__(self) -> Iterator[Session]:
        with self.database.write() as session:
            yield session
            if self.times:
                self.times -= 1
                self.tried.set()
                raise UnavailableError("away")


def test_what_the_database_did_not_take_is_tried_again(database: Database) -> None:
    queue = WriteQueue(_Away(database, 2))
    assert queue.put(_keep, "a").result(30) == "a"
    queue.close()
    assert _kept(database) == ["a"]


@pytest.mark.parametrize("closed", [False, True])
def test_patience_and_the_service_end(database: Database, closed: bool) -> None:
    away = _Away(database, 10**9)
    queue = WriteQueue(away)
    asked: Future[Any] = queue.put(_keep, "a", patience_s=3600 if closed else 0)
    if closed:
        assert away.tried.wait(30)
        queue.close()
    with pytest.raises(UnavailableError):
        asked.result(30)
    queue.close()
    with pytest.raises(UnavailableError):
        queue.put(_keep, "b").result(30)
    assert _kept(database) == []


def test_no_more_wait_than_fit(database: Database) -> None:
    with _writer_held(database):
        waiting = [database.submit(_keep, str(i)) for i in range(MOST_WAITING + 1)]
        with pytest.raises(UnavailableError, match="too much waits"):
            waiting[-1].result(0)
        for each in waiting[:-1]:
            each.cancel()


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turn, order = Turn(), []
    threads = []

    def take(number: int) -> None:
        with turn:
            order.append(number)

    with turn:
        for number in range(5):
            threads.append(Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(turn._waiting) <= number:
                pass
    for thread in threads:
        thread.join(30)
    assert order == list(range(5))


def test_a_reader_does_not_wait_for_the_writer(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'hplb.db'}")
    with database.write() as session:
        session.execute(text("INSERT INTO profile_contents VALUES ('a', '{}')"))
        assert _kept(database) == []
    assert _kept(database) == ["a"]
    database.close()
