"""attestctl, the tool for people. Each command is a module of this room; this one finds, runs and ends it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import click

from attestd import __version__
from attestd.cli.command import LazyGroup
from attestd.cli.failures import report
from attestd.control.client import ControlClient
from attestd.errors import ExitCode

_ROOM = "attestd.cli."
_COMMANDS = {
    name: _ROOM + name
    for name in (
        "status",
        "doctor",
        "inspect",
        "ps",
        "pending",
        "approve",
        "deny",
        "grants",
        "explain",
        "why",
        "servers",
        "audit",
        "reload",
    )
}


@click.group(
    cls=LazyGroup,
    modules=_COMMANDS,
    example="attestctl status",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 not permitted,
5 daemon unreachable, 6 policy invalid, 7 integrity broken, 8 internal error,
9 nothing to do. Data goes to standard output, everything else to standard error.

\b
Shell completion, for the shell's start-up file:
  bash  eval "$(_ATTESTCTL_COMPLETE=bash_source attestctl)"
  zsh   eval "$(_ATTESTCTL_COMPLETE=zsh_source attestctl)"
  fish  _ATTESTCTL_COMPLETE=fish_source attestctl | source
""",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Control socket. Default: the user's ($XDG_RUNTIME_DIR/attestd/control.sock), else /run/attestd/control.sock.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest silence of the daemon before giving up.",
)
@click.option(
    "--all-users",
    is_flag=True,
    help="On a system installation: everybody's sessions, grants, codes, servers and records, for administrators.",
)
@click.version_option(__version__, prog_name="attestctl", message="%(prog)s %(version)s")
@click.pass_context
def attestctl(ctx: click.Context, socket: Path | None, timeout: float, *, all_users: bool) -> None:
    """See, explain and decide which programs call which MCP servers."""
    ctx.obj = ControlClient(socket=socket, timeout_s=timeout, all_users=all_users, agent=_agent)


def _agent() -> AbstractContextManager[bool]:
    from attestd.cli.agent import terminal_agent  # noqa: PLC0415 - only where a password is asked for

    return terminal_agent()


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = attestctl.main(args=list(arguments), prog_name="attestctl", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever happens has an exit code and a line
        return report(error)
    return int(code) if isinstance(code, int) else ExitCode.DONE


def main() -> None:
    """Console script ``attestctl``."""
    sys.exit(run(sys.argv[1:]))
