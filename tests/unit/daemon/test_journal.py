"""Log lines for the journal and for people."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from attestd.daemon.journal import logging_to

LOG = logging.getLogger("attestd")


@pytest.fixture(name="stream")
def _stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "err").open("w+") as stream:
        yield stream


def written(stream: TextIO) -> str:
    stream.flush()
    return Path(stream.name).read_text()


def environment(stream: TextIO) -> dict[str, str]:
    found = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


@pytest.mark.parametrize(("level", "priority"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2)])
def test_each_level_has_its_priority(stream: TextIO, level: int, priority: int):
    """As syslog counts them."""
    with logging_to(stream, environment(stream)):
        LOG.setLevel(logging.DEBUG)
        LOG.log(level, "cannot %s", "serve")
    assert written(stream) == f"<{priority}>cannot serve\n"


def test_no_line_of_a_message_escapes_its_priority(stream: TextIO):
    """What a caller put into a message cannot look like a line of its own, nor move the terminal."""
    with logging_to(stream, environment(stream)):
        LOG.error("bad\n<0>emergency\r\x1b[2J")
    assert written(stream) == "<3>bad\n<3><0>emergency  [2J\n"


def test_another_stream_gets_words(stream: TextIO):
    """A redirected standard error is not the journal, whatever the environment still says."""
    with logging_to(stream, {"JOURNAL_STREAM": "1:1"}):
        LOG.warning("reload refused")
    assert written(stream) == "WARNING: reload refused\n"


def test_nothing_is_logged_there_afterwards(stream: TextIO):
    """The stream may be closed."""
    with logging_to(stream, {}):
        pass
    LOG.error("late")
    assert written(stream) == ""


def test_a_traceback_is_kept(stream: TextIO):
    """Every line of it has the priority."""
    with logging_to(stream, environment(stream)):
        LOG.error("bug", exc_info=ValueError("x"))
    lines = written(stream).splitlines()
    assert len(lines) > 1
    assert all(line.startswith("<3>") for line in lines)
