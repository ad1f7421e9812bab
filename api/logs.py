"""Structured logs on stderr: JSON lines, or readable ones where a person looks at a terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

import structlog

from profiles.cli.log_stream import LogStream


@contextmanager
def configured() -> Iterator[LogStream]:
    """Set up structlog, and let the libraries' warnings through in the same form.

    All of it goes through the stream, which at the end is written out.
    """
    person = sys.stderr.isatty()
    shown: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    rendered = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    stream = LogStream(sys.stderr)
    structlog.configure(
        processors=[*shown, rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shown, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    try:
        yield stream
    finally:
        logging.captureWarnings(False)
        stream.close()
