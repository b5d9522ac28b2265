"""``attestctl why``: the decision on a call that has not happened."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.explain import show
from attestd.cli.output import ask
from attestd.control.messages import Why
from attestd.errors import UsageError


@click.command(cls=Command, name="why", example="attestctl why --server time --tool get_current_time")
@click.option("--pid", type=click.IntRange(1, 1 << 31), metavar="N", help="Who would call. Default: this attestctl.")
@click.option("--server", required=True, metavar="NAME", help="The server that would be called.")
@click.option("--tool", metavar="NAME", help="The tool that would be called.")
@click.option("--resource", metavar="URI", help="The resource that would be read.")
@click.option("--prompt", metavar="NAME", help="The prompt that would be fetched.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    pid: int | None,
    server: str,
    tool: str | None,
    resource: str | None,
    prompt: str | None,
    as_json: bool,
) -> None:
    """Decide a call without making it.

    Shows the reasons. Without --tool, --resource or --prompt: may it connect?
    """
    if sum(given is not None for given in (tool, resource, prompt)) > 1:
        raise UsageError("cannot decide several objects at once: expected at most one of --tool, --resource, --prompt")
    request = Why(pid=pid, server=server, tool=tool, resource=resource, prompt=prompt)
    for explanation in ask(client_of(ctx), request, as_json=as_json):
        if not as_json:
            show(explanation)
