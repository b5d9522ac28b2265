"""What attestctl prints: data on standard output, everything else on standard error.

Rules: no markup and no emoji codes are interpreted; colour only on a terminal and never with NO_COLOR; the width is
the terminal's, else 80 columns; identifiers and codes are never cut or folded. rich is imported when something is
drawn, so that ``--json`` and scripts do not wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from attestd.cli.safe_text import safe
from attestd.control.client import Answer, ControlClient
from attestd.control.messages import Request

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 80


def console(stream: TextIO | None = None) -> Console:
    """Return a console on ``stream`` (standard output)."""
    from rich.console import Console  # noqa: PLC0415 - see the rules above

    target = stream or sys.stdout
    terminal = target.isatty()
    plain = not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Console(
        file=target,
        force_terminal=terminal,
        color_system=None if plain else "auto",
        no_color=plain,
        width=None if terminal else WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def remark(text: str) -> None:
    """Say something that is not data."""
    click.echo(safe(text), err=True)


def print_json(answer: Answer) -> None:
    """Print one object on one line, in ASCII: nothing in it can reach a terminal as a control character."""
    text = json.dumps(json.loads(bytes(answer.json)), ensure_ascii=True).replace("\x7f", "\\u007f")
    click.echo(text)


def ask(client: ControlClient, request: Request[Any], *, as_json: bool) -> list[Any]:
    """Ask. With ``as_json`` the answers are printed as they come; in any case they are returned."""
    values = []
    for answer in client.stream(request):
        if as_json:
            print_json(answer)
        values.append(answer.value)
    return values


def fields(to: Console, pairs: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
    """Print aligned labels and values, which are escaped and never cut; the terminal wraps them."""
    rows = [(label, value) for label, value in pairs if value]
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        line(to, f"{'':>{indent}}{label:<{width}}  ", value)


def line(to: Console, lead: str, text: str, style: str = "") -> None:
    """Print one line that is neither wrapped nor cut: our own words, then text from outside, which is escaped."""
    from rich.text import Text  # noqa: PLC0415 - see the rules above

    to.print(Text.assemble((lead, style), safe(text)), soft_wrap=True)


def table(to: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], *, whole: int = 1) -> None:
    """Print a table. The first ``whole`` columns (identifiers) stay in one piece, the others fold."""
    from rich.table import Table  # noqa: PLC0415 - see the rules above
    from rich.text import Text  # noqa: PLC0415

    escaped = [[safe(cell) for cell in row] for row in rows]
    identifiers = sum(max((len(row[at]) for row in escaped), default=0) + 2 for at in range(whole))
    drawn: Table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, heading in enumerate(headings):
        drawn.add_column(heading, no_wrap=at < whole, overflow="fold")
    for row in escaped:
        drawn.add_row(*map(Text, row))
    needed = identifiers + 8 * (len(headings) - whole)
    to.print(drawn, width=max(to.width, needed), soft_wrap=needed > to.width, crop=False)


def when(moment: datetime | None) -> str:
    """Return a time in the zone of the reader, or ``never``."""
    return "never" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Return how long ago, or how far ahead, in one unit."""
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    return f"in {lasting(-seconds)}" if seconds < 0 else f"{lasting(seconds)} ago"


def lasting(seconds: int) -> str:
    """Return a span in its largest unit: ``42 s``, ``7 min``, ``3 h``, ``12 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (seconds >= size and unit != "min"):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
