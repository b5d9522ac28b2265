"""What is printed is whole: identifiers are never cut, and the width is the terminal's or 80."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from attestd.cli.output import ago, console, fields, lasting, line, print_json, table, when
from attestd.control.client import Answer
from tests.support.control_samples import EVIL, NOW

LONG = "0123456789abcdef" * 4


def test_a_pipe_is_80_columns_wide() -> None:
    """Without a terminal the width is fixed, whatever COLUMNS says."""
    assert console(io.StringIO()).width == 80


@pytest.mark.parametrize("columns", [2, 5, 9])
def test_identifiers_in_a_table_are_whole(columns: int) -> None:
    """An identifier of 64 characters is in one piece, however many columns fight for the width."""
    buffer = io.StringIO()
    table(console(buffer), ["id", *("c" * 10,) * (columns - 1)], [[LONG, *("some long words here",) * (columns - 1)]])
    assert LONG in buffer.getvalue()
    assert "…" not in buffer.getvalue()


def test_other_columns_fold_and_lose_nothing() -> None:
    """A long cell goes over several lines, whole."""
    buffer = io.StringIO()
    table(console(buffer), ["id", "text"], [["g-1", "x" * 300]])
    assert buffer.getvalue().count("x") == 300 + 1
    assert max(map(len, buffer.getvalue().splitlines())) <= 80


def test_a_long_value_is_left_to_the_terminal() -> None:
    """A value is on one line, so that it can be copied and searched."""
    buffer = io.StringIO()
    fields(console(buffer), [("spiffe id", LONG * 4), ("none", ""), ("x", "y")])
    assert buffer.getvalue() == f"spiffe id  {LONG * 4}\nx          y\n"


def test_hostile_cells_and_values_are_escaped() -> None:
    """Tables, fields and lines escape, and read no markup."""
    buffer = io.StringIO()
    to = console(buffer)
    table(to, ["id", "text"], [["g-1", EVIL]])
    fields(to, [("x", EVIL)])
    line(to, "y ", EVIL)
    assert "\x1b" not in buffer.getvalue()
    assert "\u202e" not in buffer.getvalue()
    assert buffer.getvalue().count("[red]") == 3


def test_json_is_one_ascii_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in it, an object is one line that no terminal acts on; its value is unchanged."""
    data = msgspec.json.encode({"name": EVIL, "big": 12345678901234567890})
    print_json(Answer(json=msgspec.Raw(data), value=None))
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.isascii()
    assert out[:-1].isprintable()
    assert msgspec.json.decode(out) == {"name": EVIL, "big": 12345678901234567890}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h"), (86400, "1 d"), (200000, "2 d")]
)
def test_spans(seconds: int, text: str) -> None:
    """One unit, the largest that fits."""
    assert lasting(seconds) == text


def test_times() -> None:
    """Past, future and never."""
    assert ago(NOW, NOW + timedelta(hours=3)) == "3 h ago"
    assert ago(NOW, NOW - timedelta(minutes=5)) == "in 5 min"
    assert when(None) == "never"
    assert when(datetime(2026, 7, 30, tzinfo=UTC))[:4] == "2026"
