"""A daemon that has only its control socket: the real server, proof and wire around the fake service.

Run as a script named ``attestd`` beside ``attestctl``, it is what the client proves to be the daemon.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

from attestd.control import replies as r
from attestd.control.service import ControlCaller
from attestd.daemon.control_server import Attested, ControlLimits, ControlServer
from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Peer
from tests.fakes.service import FakeService
from tests.support.control_samples import record, session


class PidWatch:
    """The writer must be the peer; ``cause`` makes it fail like a process that has changed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.cause: Cause | None = None
        self.closed = False

    def verify(self, writer_pid: int) -> Cause | None:
        """Compare."""
        return self.cause or (None if writer_pid in (0, self.pid) else Cause.WRITER_MISMATCH)

    def exit_fds(self) -> tuple[int, ...]:
        """None are held."""
        return ()

    def pin_accountable(self, index: int) -> None:
        """Nothing is pinned."""

    def leave_connection(self) -> None:
        """Nothing is kept of it."""

    def set_aside(self) -> None:
        """Nothing relays here."""

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def peer_of(descriptor: int) -> Peer:
    """The kernel's word. Raises EvidenceError."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if pid == 0:
        raise EvidenceError(Cause.FOREIGN_NAMESPACE, "cannot see the peer")
    return Peer(pid=pid, uid=uid, gid=gid, groups=(), security_label=None, source="pid-only")


def caller_of(descriptor: int, how: str, *, asks: bool = False) -> Attested[str]:
    """A caller of this right."""
    peer = peer_of(descriptor)
    caller = ControlCaller(
        uid=peer.uid,
        pid=peer.pid,
        result="attested",
        how=how,
        display="attestctl",
        why_not="node is an ancestor",
        asks=asks,
    )
    return Attested(caller=caller, watch=PidWatch(peer.pid))


def server(path: Path, service: FakeService, **changes: Any) -> ControlServer[str]:
    """The real server with test doors; ``changes`` replaces any of them."""

    async def attest(descriptor: int) -> Attested[str]:
        return caller_of(descriptor, "clean-chain")

    values: dict[str, Any] = {
        "path": path,
        "service": service,
        "peer_of": peer_of,
        "attest": attest,
        "only_uid": os.geteuid(),
        "on_bug": print,
        **changes,
    }
    return ControlServer(**values)


def furnish(service: FakeService, plan: dict[str, Any]) -> None:
    """Set the state that a test asks for."""
    for number in range(plan.get("sessions", 0)):
        ancestors = (
            r.Ancestor(pid=10, start=1, cls="edge", title="ghostty"),
            r.Ancestor(pid=20, start=2, cls="pass", title="zsh"),
            r.Ancestor(pid=30 + number, start=3, cls="host", title="client.py"),
        )
        service.open.append(session(number, ancestors))
    service.records += [
        record(seq, "decision", f"d-{seq}", verdict="permit") for seq in range(2, plan.get("records", 0))
    ]
    service.problems = tuple(msgspec.convert(plan.get("problems", []), list[r.Problem]))
    service.checks += msgspec.convert(plan.get("checks", []), list[r.Check])
    service.mode = plan.get("mode", "user")
    service.bug = plan.get("bug", False)
    service.restless = plan.get("restless", False)
    for name in plan.get("empty", []):
        getattr(service, name).clear()


async def _serve(path: Path, plan: dict[str, Any]) -> None:
    service = FakeService()
    furnish(service, plan)

    async def attest(descriptor: int) -> Attested[str]:
        return caller_of(descriptor, plan.get("how", "clean-chain"), asks=plan.get("asks", False))

    control = server(path, service, attest=attest, limits=ControlLimits(request_s=5))
    control.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await control.close()


def main() -> None:
    """``attestd SOCKET PLAN``: serve until standard input ends."""
    asyncio.run(_serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
