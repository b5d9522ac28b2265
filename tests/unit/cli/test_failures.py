"""Every way to end has its code and its lines."""

from __future__ import annotations

import click
import pytest

from attestd.cli.failures import report
from attestd.errors import ExitCode, IntegrityError, PolicyInvalidError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            IntegrityError("record 7 was changed", hint="look"),
            ExitCode.INTEGRITY_BROKEN,
            "error: record 7 was changed\nhint: look\n",
        ),
        (PolicyInvalidError("cannot read x"), ExitCode.POLICY_INVALID, "error: cannot read x\n"),
        (click.Abort(), ExitCode.FAILED, "error: interrupted: nothing more was done\n"),
        (click.UsageError("No such thing."), ExitCode.USAGE, "error: no such thing\nhint: see: attestctl --help\n"),
        (click.ClickException("Broken."), ExitCode.FAILED, "error: broken\n"),
    ],
)
def test_lines_and_codes(error: Exception, code: ExitCode, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message and the hint are on standard error, lower case, without a final stop."""
    assert report(error) is code
    assert capsys.readouterr() == ("", said)


def test_a_message_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A message cannot forge a second line."""
    report(IntegrityError("a\nhint: b"))
    assert capsys.readouterr().err == "error: a\\x0ahint: b\n"
