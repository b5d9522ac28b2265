"""Man pages and completions, from the commands themselves: the same words as ``--help``."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from attestd.cli.main import attestctl
from attestd.daemon.main import main as attestd
from attestd.kernel.linux.recorder.main import main as recorder
from attestd.shim import HELP

_WIDTH = 78
_GROUPS = {"attestd.8": attestd, "attestctl.1": attestctl, "attestd-recorder.8": recorder}
_SHELLS = {
    "bash": "usr/share/bash-completion/completions/{name}",
    "zsh": "usr/share/zsh/vendor-completions/_{name}",
    "fish": "usr/share/fish/vendor_completions.d/{name}.fish",
}


def pages(date: str) -> dict[str, str]:
    """Each page by its file name. ``date``: an RFC 5322 date."""
    made = {page: _page(page, command, date) for page, command in _GROUPS.items()}
    title = "connect an MCP client to a server through attestd"
    made["attestd-connect.1"] = _head("attestd-connect.1", title, date) + _section("DESCRIPTION", HELP) + _also()
    return made


def completions() -> dict[str, str]:
    """Each completion by its path in the package."""
    made = {}
    for shell, path in _SHELLS.items():
        found = get_completion_class(shell)
        if found is None:
            raise SystemExit(f"cannot make completions: this click knows no {shell}")
        for page, command in _GROUPS.items():
            name = page.rsplit(".", 1)[0]
            variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
            made[path.format(name=name)] = found(command, {}, name, variable).source() + "\n"
    return made


def _page(page: str, command: click.Command, date: str) -> str:
    name = page.rsplit(".", 1)[0]
    title = (command.help or name).split("\n", 1)[0].rstrip(".")
    return _head(page, title, date) + "".join(_commands(command, None, name)) + _also()


def _commands(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield _section("DESCRIPTION" if parent is None else context.command_path.upper(), command.get_help(context))
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from _commands(found, context, child)


def _head(page: str, title: str, date: str) -> str:
    name, section = page.rsplit(".", 1)
    day = " ".join(date.split()[1:4])
    return f'.TH {name.upper()} {section} "{day}" "attestd" "attestd"\n.SH NAME\n{_line(name)} \\- {_line(title)}\n'


def _section(title: str, text: str) -> str:
    lines = "\n".join(_line(line.rstrip()) for line in text.strip().splitlines())
    return f'.SH "{title}"\n.nf\n{lines}\n.fi\n'


def _also() -> str:
    pages = "attestd(8), attestctl(1), attestd\\-connect(1), attestd\\-recorder(8)"
    return f'.SH "SEE ALSO"\n{pages},\n/usr/share/doc/attestd\n'


def _line(text: str) -> str:
    """One line of text as roff takes it literally."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
