"""``attestctl ps``: live sessions, below whoever launched them."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, remark
from attestd.control.messages import ListSessions


@click.command(cls=Command, name="ps", example="attestctl ps")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List live sessions.

    With their calls and denials, as a tree of who launched whom.
    """
    sessions = ask(client_of(ctx), ListSessions(), as_json=as_json)
    if not sessions:
        remark("no session is open")
    elif not as_json:
        from attestd.cli.trees import session_tree  # noqa: PLC0415 - see output

        to = console()
        for tree in session_tree(sessions):
            to.print(tree)
