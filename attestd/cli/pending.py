"""``attestctl pending``: refused clients that wait for a decision. That none waits is no failure: exit code 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ago, ask, console, fields, line, remark
from attestd.cli.safe_text import quoted, safe
from attestd.control.messages import ListPending
from attestd.control.replies import Pending

if TYPE_CHECKING:
    from rich.console import Console


@click.command(cls=Command, name="pending", example="attestctl pending")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List refused clients that wait.

    Who called which server, what it wanted, how often, and why it was refused. Exits 0 also when none waits.
    """
    waiting = ask(client_of(ctx), ListPending(), as_json=as_json)
    if not waiting:
        remark("no client is waiting")
    if as_json:
        return
    to = console()
    for number, pending in enumerate(waiting):
        if number:
            to.print()
        show(to, pending)
        line(to, "  decide with: ", f"attestctl approve {pending.code}")


def show(to: Console, pending: Pending) -> None:
    """Print one waiting client with its process tree."""
    from attestd.cli.trees import chain_tree, reason_text  # noqa: PLC0415 - see output

    line(to, safe(pending.code), f"  refused on {pending.server}: {pending.cause}", "bold")
    caller = pending.caller
    fields(
        to,
        [
            ("caller", caller.display),
            ("calls itself", quoted(pending.client_name) if pending.client_name else ""),
            *(("wants", f"{want.method} {want.name} ({want.count} times)") for want in pending.wants),
            *(
                ("launched by", f"{launcher.display} {launcher.program or 'unreadable'}")
                for launcher in caller.launchers
            ),
            ("inline", "started through inline code" if caller.inline else ""),
            ("level", str(caller.level)),
            *(("reason", reason_text(reason)) for reason in caller.reasons),
            ("seen", f"{pending.count} times, first {ago(pending.first_seen)}, last {ago(pending.last_seen)}"),
            ("expires", ago(pending.expires) if pending.expires else ""),
        ],
        indent=2,
    )
    if pending.chain:
        to.print(chain_tree(pending.chain, pending.accountable))
