"""What a server file may say about a server that attestd starts, beyond what its types say.

User mode has no privilege: servers run as the user, and what needs another uid or a cgroup is refused. In system mode
the launcher reads the same file again, itself, and by name: so the file is called like the server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from attestd.launch.protocol import Sandbox

if TYPE_CHECKING:
    from attestd.daemon.config import ServerSettings

Rule = tuple[bool, str, object, str]
"""Whether it is broken, the key, what was found, what is expected."""
RUN_AS: Final = re.compile(r"(?:caller|isolated|user:[a-z_][a-z0-9_-]{0,31})\Z")


def sandbox(server: ServerSettings) -> Sandbox:
    """What the server has to do without, as the launcher of user mode is told."""
    return Sandbox(
        network=server.network,
        read_only=server.read_only,
        writable=server.writable,
        limits=tuple((name, number) for name, number in msgspec.structs.asdict(server.limits).items() if number),
    )


def stdio_rules(server: ServerSettings, *, user_mode: bool) -> tuple[Rule, ...]:
    """The rules of a server that is, or wrongly is not, started."""
    if server.transport != "stdio":
        started = "nothing of this for a server that attestd does not start"
        return (
            (server.run_as != "caller", "run_as", server.run_as, started),
            (not server.network, "network", server.network, started),
            (server.read_only, "read_only", server.read_only, started),
            (bool(server.writable), "writable", list(server.writable), started),
            (bool(sandbox(server).limits), "limits", dict(sandbox(server).limits), started),
        )
    relative = [path for path in server.writable if not path.startswith("/") or "\0" in path]
    odd = [name for name in server.env if not name or "=" in name]
    return (
        (bool(odd), "env", odd, "names that are not empty and have no ="),
        (bool(relative), "writable", relative, "absolute paths"),
        (
            bool(server.writable) and not server.read_only,
            "writable",
            list(server.writable),
            "read_only = true beside it: without that everything is writable",
        ),
        (user_mode and server.run_as != "caller", "run_as", server.run_as, '"caller": user mode starts servers as you'),
        (
            user_mode and bool(server.limits.memory_mib),
            "limits.memory_mib",
            server.limits.memory_mib,
            "no such limit in user mode, which has no cgroup for it: address_space_mib needs none",
        ),
        (not RUN_AS.match(server.run_as), "run_as", server.run_as, '"caller", "isolated" or "user:NAME"'),
        (
            not user_mode and server.shared and server.run_as == "caller",
            "run_as",
            server.run_as,
            '"isolated" or "user:NAME": a shared server has no one caller',
        ),
    )
