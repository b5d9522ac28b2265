"""``attestctl status``: how the daemon is, and in user mode what it does not protect against."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, fields, lasting, line, when
from attestd.control.messages import GetStatus
from attestd.control.replies import Status


@click.command(cls=Command, name="status", example="attestctl status --json")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show how the daemon is.

    Mode, recorder, servers, sessions, policy, audit and the last errors; in user mode also what it does not protect
    against.
    """
    for status in ask(client_of(ctx), GetStatus(), as_json=as_json):
        if not as_json:
            _show(status)


def _show(status: Status) -> None:
    to = console()
    mode = f"{status.mode} mode"
    line(to, "attestd ", f"{status.version}, {mode}, pid {status.pid}, up {lasting(status.uptime_s)}")
    fields(
        to,
        [
            ("recorder", f"{status.recorder.state}: {status.recorder.reason}"),
            ("policy", f"generation {status.policy.generation}, mode {status.policy.mode}"),
            ("sessions", str(status.sessions)),
            ("audit", f"{status.audit.records} records, head {status.audit.head or 'none'}"),
            *(("server", f"{server.name} ({server.transport}) {server.state}") for server in status.servers),
            *(("sealed", f"{seal.server} (port {seal.port}) {seal.state}") for seal in status.seals),
            *(("approver", digest) for digest in status.approvers),
            *(("error", f"{when(trouble.time)} {trouble.message}") for trouble in status.errors),
        ],
        indent=2,
    )
    if not status.servers:
        line(to, "  ", "no server is registered: attestctl servers add --help")
    if status.approvers:
        line(to, "  ", "the programs named as approver may approve without a person")
    if status.not_protected:
        line(to, f"What {mode} does not protect against:", "", "bold")
        for sentence in status.not_protected:
            line(to, "  - ", sentence)
