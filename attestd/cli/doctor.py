"""``attestctl doctor``: what is well and what is not, with the remedy. It also says so when the daemon is away."""

from __future__ import annotations

import json

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, line
from attestd.cli.safe_text import safe
from attestd.cli.sealed import left_sealed
from attestd.control.messages import RunDoctor
from attestd.control.replies import Check
from attestd.errors import ExitCode, UnreachableError

_LABELS = {"ok": ("[ok]  ", "green"), "warn": ("[warn]", "yellow"), "fail": ("[fail]", "bold red")}


@click.command(cls=Command, name="doctor", example="attestctl doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> ExitCode:
    """Find what is wrong, with the remedy.

    Checks the kernel, the installation and the daemon, and prints [ok], [warn] or [fail] for each, with what a missing
    kernel feature costs and how to get it.
    Exits 1 if any check fails, also when the daemon cannot be reached or proven to be attestd.
    """
    try:
        checks: list[Check] = ask(client_of(ctx), RunDoctor(), as_json=as_json)
    except UnreachableError as error:
        away = Check(name="daemon", status="fail", detail=error.message, remedy=error.hint)
        checks = [away, *left_sealed()]
        if as_json:
            names = ("name", "status", "detail", "remedy")
            for check in checks:
                click.echo(json.dumps({name: getattr(check, name) for name in names}))
    if not as_json:
        _show(checks)
    return ExitCode.FAILED if any(check.status not in ("ok", "warn") for check in checks) else ExitCode.DONE


def _show(checks: list[Check]) -> None:
    to = console()
    width = max((len(safe(check.name)) for check in checks), default=0)
    for check in checks:
        label, style = _LABELS.get(check.status, _LABELS["fail"])
        line(to, f"{label} {safe(check.name):<{width}}  ", check.detail, style)
        if check.cost and check.status != "ok":
            line(to, f"{'':>{width + 9}}costs: ", check.cost)
        if check.remedy and check.status != "ok":
            line(to, f"{'':>{width + 9}}do: ", check.remedy)
