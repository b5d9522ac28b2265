"""``attestctl reload``: reads the configuration again."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, line
from attestd.control.messages import Reload


@click.command(cls=Command, name="reload", example="attestctl reload")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Read configuration and policy again.

    A bad one is refused, and the old one stays.
    """
    for reloaded in ask(client_of(ctx), Reload(), as_json=as_json):
        if not as_json:
            to = console()
            line(to, "reloaded ", f"generation {reloaded.generation}")
            for change in reloaded.changes:
                line(to, "  - ", change)
