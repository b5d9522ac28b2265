"""Writes docs/reference/cli.md from the commands: ``python -m attestd.cli.reference docs/reference/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from attestd.cli.main import attestctl
from attestd.errors import ExitCode

_WIDTH = 80


def render() -> str:
    """Return the whole page."""
    sections = [
        "# attestctl",
        "This page is generated from the commands themselves by `python -m attestd.cli.reference`; do not edit it.",
        *_sections(attestctl, None, "attestctl"),
        "## Exit codes",
        "| code | meaning |\n|---|---|\n"
        + "\n".join(f"| {code.value} | {code.name.lower().replace('_', ' ')} |" for code in ExitCode),
    ]
    return "\n\n".join(sections) + "\n"


def _sections(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
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
                yield from _sections(found, context, child)


def main(path: Path) -> None:
    """Write the page."""
    path.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
