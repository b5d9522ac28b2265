"""Commands and groups of attestctl: each help ends with an example; subcommands are imported when they run."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import click

from attestd.control.client import ControlClient

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON with stable keys: one object, or one object a line."
)


class _WithExample(click.Command):
    """Adds ``example``: one command line that works as it stands."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog, then the example as it is: never wrapped."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Example"):
            formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")


class Command(_WithExample):
    """One command."""


class LazyGroup(_WithExample, click.Group):
    """A group whose commands are named by module: ``name -> module``, each with a command of that name in it."""

    def __init__(self, *args: Any, modules: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which is the order of the help."""
        return [*self._modules, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        command = getattr(import_module(self._modules[cmd_name]), "command")  # noqa: B009 - typed Any on purpose
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a misspelt command is told which ones are spelt alike, without importing any."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            alike = get_close_matches(args[0], self.list_commands(ctx))
            if not alike or args[0].startswith("-"):
                raise
            meant = " or ".join(repr(name) for name in alike)
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {meant}?", ctx) from error


def client_of(ctx: click.Context) -> ControlClient:
    """Return the client that the root command has set up."""
    return ctx.ensure_object(ControlClient)
