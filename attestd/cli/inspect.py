"""``attestctl inspect``: the evidence about one process, and what it is taken for."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, fields, line
from attestd.control.messages import Inspect
from attestd.control.replies import Inspection
from attestd.errors import UsageError


@click.command(cls=Command, name="inspect", example="attestctl inspect --self")
@click.option("--pid", type=click.IntRange(1, 1 << 31), metavar="N", help="The process to look at.")
@click.option("--self", "own", is_flag=True, help="Look at this attestctl and whoever started it.")
@json_option
@click.pass_context
def command(ctx: click.Context, pid: int | None, own: bool, as_json: bool) -> None:
    """Show what a process is taken for.

    The process and its ancestors as a tree, its identity, and its level with every reason.
    """
    if own == (pid is not None):
        raise UsageError("cannot tell which process to inspect: expected exactly one of --pid N and --self")
    for inspection in ask(client_of(ctx), Inspect(pid=pid), as_json=as_json):
        if not as_json:
            _show(inspection)


def _show(inspection: Inspection) -> None:
    from attestd.cli.trees import chain_tree, identity_pairs  # noqa: PLC0415 - see output

    to = console()
    to.print(chain_tree(inspection.chain, inspection.accountable))
    if inspection.end:
        line(to, "The chain ends: ", inspection.end)
    if inspection.recorder is not None:
        line(to, "recorder: ", f"{inspection.recorder.state}: {inspection.recorder.reason}")
    fields(to, identity_pairs(inspection.identity))
