"""Every way a command can end, as lines on standard error and an exit code of the table in ``errors.ExitCode``."""

from __future__ import annotations

import sys
import traceback

import click

from attestd.cli.safe_text import safe
from attestd.errors import AttestdError, ExitCode


def report(error: BaseException) -> ExitCode:
    """Tell the person, and return the exit code."""
    if isinstance(error, AttestdError):
        _say(error.message, error.hint)
        return error.exit_code
    if isinstance(error, click.Abort):
        _say("interrupted: nothing more was done", "")
        return ExitCode.FAILED
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "attestctl"
        _say(_lower(error.format_message()), f"see: {path} --help")
        return ExitCode.USAGE
    if isinstance(error, click.ClickException):
        _say(_lower(error.format_message()), "")
        return ExitCode.FAILED
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {last[0].filename.rsplit('/', 1)[-1]}:{last[0].lineno}" if last else ""
    _say(
        f"attestctl made a mistake: {type(error).__name__}: {error}{where}",
        "this is a bug; please report it with the command and this line",
    )
    return ExitCode.INTERNAL


def _say(message: str, hint: str) -> None:
    colour = sys.stderr.isatty() and not _no_colour()
    for label, text, tint in (("error:", message, "red"), ("hint:", hint, "cyan")):
        if text:
            click.echo(f"{click.style(label, fg=tint, bold=True) if colour else label} {safe(text)}", err=True)


def _no_colour() -> bool:
    import os  # noqa: PLC0415 - only when something has failed

    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def _lower(text: str) -> str:
    plain = text.rstrip(".")
    return plain[:1].lower() + plain[1:]
