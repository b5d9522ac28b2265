"""``attestctl audit``: read the log, and prove that it is what was written.

``verify`` exits 7 when it is not. With ``--directory`` it reads the files itself, without any daemon: for a copy of
the log, a daemon that is not believed, or one that is gone.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attestd.cli.command import Command, LazyGroup, client_of, json_option
from attestd.cli.output import console, fields, line, print_json, remark, when
from attestd.cli.safe_text import safe
from attestd.control.client import Answer
from attestd.control.messages import QueryAudit, Request, TailAudit, VerifyAudit
from attestd.control.replies import Progress, Record, Verification
from attestd.control.times import moment
from attestd.errors import ConfigurationError, ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

_VERDICTS = {"permit": "green", "deny": "red", "error": "red"}

_DIGEST_LETTERS = 64
_GAP = re.compile(" {2,}")


@click.group(cls=LazyGroup, name="audit", example="attestctl audit tail --lines 20")
def command() -> None:
    """Read and verify what attestd recorded."""


@command.command(cls=Command, name="tail", example="attestctl audit tail --lines 20")
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=10, show_default=True, help="How many records.")
@click.option("-f", "--follow", is_flag=True, help="Then print each new record until interrupted.")
@json_option
@click.pass_context
def tail(ctx: click.Context, lines: int, follow: bool, as_json: bool) -> None:
    """Print the last records, oldest first."""
    try:
        _print(ctx, TailAudit(lines=lines, follow=follow), as_json=as_json, patient=follow)
    except KeyboardInterrupt:
        if not follow:
            raise


@command.command(cls=Command, name="query", example="attestctl audit query --since 24h --verdict deny --json")
@click.option("--since", metavar="TIME", help="From then on: 2h, 7d, or 2026-07-30T14:00.")
@click.option("--until", metavar="TIME", help="Before then.")
@click.option("--kind", metavar="KIND", help="caller, session, decision, result, hop, admin or log.")
@click.option("--id", "id", metavar="ID", help="Of a decision, grant or code.")
@click.option("--session", metavar="ID", help="Of one session.")
@click.option("--server", metavar="NAME", help="Of one server.")
@click.option("--method", metavar="METHOD", help="Such as tools/call.")
@click.option("--name", metavar="NAME", help="Of a tool, resource or prompt.")
@click.option("--caller", metavar="DIGEST", help="Digest of a caller or program; a beginning is enough.")
@click.option("--verdict", metavar="WORD", help="permit, deny, end, error or ok.")
@click.option("--cause", metavar="CAUSE", help="Such as no_grant.")
@click.option("--pid", type=click.IntRange(1, 1 << 31), metavar="N", help="Of one process.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many records.")
@json_option
@click.pass_context
def query(ctx: click.Context, /, *, since: str | None, until: str | None, as_json: bool, **matching: Any) -> None:
    """Print the records that match.

    Every option must hold; oldest first.
    """
    now = datetime.now(UTC)
    request = QueryAudit(
        since=moment(since, now) if since else None, until=moment(until, now) if until else None, **matching
    )
    if not _print(ctx, request, as_json=as_json):
        remark("no record matches")


def _print(ctx: click.Context, request: Request[Record], *, as_json: bool, patient: bool = False) -> int:
    to: Console | None = None
    count = 0
    for answer in client_of(ctx).stream(request, patient=patient):
        count += 1
        if as_json:
            print_json(answer)
        else:
            to = to or console()
            _line(to, answer.value)
        if patient:
            sys.stdout.flush()
    return count


def _line(to: Console, record: Record) -> None:
    parts = [
        f"{when(record.time)} #{record.seq} {record.kind}",
        record.cause,
        f"{record.method} {record.name}".strip(),
        f"on {record.server}" if record.server else "",
        f"id {record.id}" if record.id else "",
        f"pid {record.pid}" if record.pid else "",
        " ".join(f"{key}={_brief(value)}" for key, value in record.detail.items()),
        f"by {_brief(record.display)}" if record.display else "",
    ]
    lead = f"{safe(record.verdict):<6} " if record.verdict else "       "
    line(to, lead, "  ".join(_part(part) for part in parts if part), _VERDICTS.get(record.verdict, ""))


@command.command(cls=Command, name="verify", example="attestctl audit verify --json")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Verify the log in this directory, without the daemon.",
)
@click.option("--key", "keys", multiple=True, metavar="VKEY", help="With --directory: the key it must begin with.")
@click.option(
    "--head", type=click.Path(path_type=Path), metavar="FILE", help="With --directory: a checkpoint kept elsewhere."
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context, /, *, directory: Path | None, keys: tuple[str, ...], head: Path | None, as_json: bool
) -> ExitCode:
    """Prove that the log is what was written.

    Verifies chain, tree and signed checkpoints of the whole log. Exits 7 if a record is not what was written, and
    names it.
    """
    if directory is None and (keys or head):
        raise UsageError("cannot use --key or --head here: they need --directory DIR")
    with _progress() as progress:
        answer = _ask(ctx, progress) if directory is None else _offline(directory, keys, head, progress)
    verification: Verification = answer.value
    if as_json:
        print_json(answer)
    else:
        _show(verification)
    return ExitCode.DONE if verification.ok else ExitCode.INTEGRITY_BROKEN


def _ask(ctx: click.Context, progress: Callable[[Progress], None]) -> Answer:
    answers = list(client_of(ctx).stream(VerifyAudit(), progress=progress))
    if len(answers) != 1:
        raise ConfigurationError(f"cannot verify: the daemon gave {len(answers)} reports, expected 1")
    return answers[0]


def _offline(directory: Path, keys: tuple[str, ...], head: Path | None, progress: Callable[[Progress], None]) -> Answer:
    from attestd.cli.offline import verify_directory  # noqa: PLC0415 - the audit room is needed here only

    return verify_directory(directory, keys, head, progress)


def _show(verification: Verification) -> None:
    to = console()
    word, style = ("ok", "bold green") if verification.ok else ("broken", "bold red")
    line(to, word, f"  {verification.records} records in {verification.segments} segments", style)
    fields(to, [("head", verification.head)], indent=2)
    for problem in verification.problems:
        record = "" if problem.record is None else f"record {problem.record}: "
        offset = "" if problem.offset is None else f" at byte {problem.offset}"
        place = f" (segment {problem.segment}{offset})" if problem.segment else ""
        repeated = problem.what.startswith(f"record {problem.record}")
        line(to, "  - ", f"{'' if repeated else record}{problem.what}{place}")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn  # noqa: PLC0415 - see output
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("verifying", total=None)
        yield lambda step: bar.update(task, completed=step.done, total=step.total or None)


def _part(text: str) -> str:
    """Two spaces part the fields of a line; in a name that others chose they would make up fields of their own."""
    return _GAP.sub(lambda gap: f" [{len(gap[0])} spaces] ", text)


def _brief(value: str | int | bool) -> str:
    """A caller's line without its launch context, a digest without its tail: the whole of both is in ``--json``."""
    text = str(value).partition(" | ")[0]
    digest = len(text) == _DIGEST_LETTERS and all(letter in "0123456789abcdef" for letter in text)
    return f"{text[:12]}…" if digest else text
