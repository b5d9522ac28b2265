"""``attestctl deny``: sends a waiting client away."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, line
from attestd.control.messages import Deny


@click.command(cls=Command, name="deny", example="attestctl deny 7F3K-9QRT")
@click.argument("code")
@click.option("--always", is_flag=True, help="Do not ask again for this program on this server.")
@json_option
@click.pass_context
def command(ctx: click.Context, code: str, always: bool, as_json: bool) -> None:
    """Send a refused client away."""
    for denied in ask(client_of(ctx), Deny(pending=code, always=always), as_json=as_json):
        if not as_json:
            lasting = ", and it will not be asked again" if denied.always else ""
            line(console(), "denied ", f"{denied.code}: {denied.display} on {denied.server}{lasting}")
