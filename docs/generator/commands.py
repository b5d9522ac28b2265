"""docs/reference/cli.md, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from attestd import errors
from attestd.cli.main import attestctl
from attestd.daemon.main import main as attestd
from attestd.errors import AttestdError, ExitCode
from attestd.shim import HELP
from docs.generator.markdown import code, page, plain, table

_WIDTH = 80
_OTHER = {
    ExitCode.DONE: "Done; also where there was nothing to show.",
    ExitCode.FAILED: "Failed, or `doctor` found something that fails.",
    ExitCode.INTERNAL: "A mistake of attestd's own; please report it.",
}


def render() -> str:
    """Return the page."""
    return page(
        "Commands",
        "the commands' own help",
        "`attestctl` is the tool for people, `attestd` the daemon, `attestd-connect` the shim that clients start.",
        *sections(attestctl, None, "attestctl"),
        *sections(attestd, None, "attestd"),
        f"## attestd-connect\n\n```\n{HELP.rstrip()}\n```",
        "Exit codes of `attestd-connect`: 0 the session ended, 1 the connection broke, 2 usage, 5 the daemon cannot be "
        "reached or trusted (it first answers every request with that error, until its input ends).",
        "## Exit codes\n\n" + table(("code", "name", "meaning"), _exit_codes()),
    )


def sections(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    """The help of one command, then of its own commands."""
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"## {context.command_path}"
    help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"```\n{help_text}\n```"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from sections(found, context, child)


def _exit_codes() -> Iterator[tuple[str, str, str]]:
    meaning = dict(_OTHER)
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, AttestdError) and found.exit_code not in meaning:
            meaning[found.exit_code] = plain(found.__doc__)
    for each in ExitCode:
        yield code(str(each.value)), each.name.lower().replace("_", " "), meaning[each]
