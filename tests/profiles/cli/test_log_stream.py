import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest
from structlog.testing import capture_logs

from profiles.cli import log_stream
from profiles.cli.log_stream import LogStream

LINE = "x" * 99 + "\n"


@contextmanager
def piped() -> Iterator[tuple[BinaryIO, LogStream]]:
    """A pipe's end to read, and the stream that writes into the other."""
    out, into = os.pipe()
    with open(out, "rb") as reader, open(into, "w") as writer:
        stream = LogStream(writer)
        try:
            yield reader, stream
        finally:
            # What is still written finds nobody: the thread ends.
            reader.close()
            stream.close()


def test_lines_arrive_whole_and_in_turn() -> None:
    with piped() as (reader, stream):
        for number in range(1000):
            stream.write(f"{number}\n")
        assert [int(reader.readline()) for _ in range(1000)] == list(range(1000))
        assert stream.lost == 0


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the bound is lost, and the log says so once it is read."""
    most = 200_000
    monkeypatch.setattr(log_stream, "MOST_BYTES", most)
    with piped() as (reader, stream), capture_logs() as noted:
        written = 5000
        for _ in range(written):
            stream.write(LINE)
        lost = stream.lost
        assert 0 < lost < written
        assert (written - lost) * len(LINE) >= most
        for _ in range(written - lost):
            assert reader.readline() == LINE.encode()
        while not noted:
            time.sleep(0.01)
        assert stream.lost == lost
    assert noted[0] == {"event": "log_lines_lost", "log_level": "warning", "lines": lost}


def test_a_reader_that_is_gone_is_no_error() -> None:
    with piped() as (reader, stream):
        reader.close()
        stream.write(LINE)
        while stream.lost < 1:
            pass
        stream.write(LINE)
        while stream.lost < 2:
            pass


def test_what_waits_is_written_at_the_end() -> None:
    kept = io.BytesIO()
    out = io.TextIOWrapper(kept)
    stream = LogStream(out)
    for _ in range(1000):
        stream.write(LINE)
    stream.close()
    assert kept.getvalue() == 1000 * LINE.encode()
    stream.write(LINE)
    assert stream.lost == 1


def test_it_ends_though_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "LAST_S", 0.05)
    with piped() as (_, stream):
        stream.write(LINE * 10_000)
        stream.close()
