"""The launcher of system mode: starts the servers of root's registry, as whom it says, for one daemon.

Run by systemd as ``python -I -S system.py``, with its listening socket (``LISTEN_FDS``) and four capabilities: SETUID
and SETGID to become others, KILL to end them, SETPCAP to take every capability from them. Standard library only, and of
attestd nothing but what is imported here.

Rules
- The daemon may be anybody's by now. It gets what it could have had anyway: servers that root registered, started for
  processes that exist. Command, environment and sandbox come from the registry, never from a message.
- A connection counts if the kernel names the daemon's uid at its other end. What comes on it is ``ordered``'s business.
- One process is forked for each connection, and a supervisor for each of its servers; both as in user mode. The end of
  the connection is the end of its servers.
"""

import argparse
import gc
import os
import socket
import sys
import time
from collections.abc import Iterable
from functools import partial

if __name__ == "__main__":  # last, so that nothing beside this package can stand for the standard library
    sys.path.append(__file__.removesuffix("/attestd/launch/system.py"))

from attestd.launch import cgroups
from attestd.launch.accounts import SHARED, Account, IsolatedUids, named, of_client
from attestd.launch.becoming import SystemOrder
from attestd.launch.cgroups import Cgroups
from attestd.launch.ordered import peer_of, receive
from attestd.launch.program import ALERT_S, Launcher, close_all, tell
from attestd.launch.refusal import RefusedError
from attestd.launch.registry import Registered, read
from attestd.launch.tree import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, prctl

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

LISTEN_FD = 3
"""The first descriptor that systemd hands over."""
CONNECTIONS = 4
"""One daemon, and what a restart may overlap with."""
SERVERS = 4096
"""Servers of one connection at a time."""
ISOLATED_PROCESSES = 512


class Setting:
    """What root said when it started the launcher."""

    def __init__(self, words: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="attestd-launcher", description="Starts the servers of root's registry.")
        parser.add_argument("--daemon", default="attestd", metavar="ACCOUNT", help="whose process may order")
        parser.add_argument("--registry", default="/etc/attestd/servers.d", metavar="DIRECTORY")
        parser.add_argument("--state", default="/var/lib/attestd-launcher", metavar="DIRECTORY")
        parser.add_argument(
            "--isolated", default="1900000000-1900065535", metavar="FIRST-LAST", help="uids to give out"
        )
        found = parser.parse_args(words)
        self.registry = str(found.registry)
        self.daemon = int(found.daemon) if found.daemon.isdigit() else named(found.daemon).uid
        first, _, last = found.isolated.partition("-")
        self.isolated = IsolatedUids(f"{found.state}/isolated-uids", int(first), int(last))
        self.cgroups = Cgroups(cgroups.own_cgroup())


class Desk(Launcher):
    """Serves one connection."""

    def __init__(self, control: socket.socket, peer: int, setting: Setting) -> None:
        super().__init__(control)
        self._peer = peer
        self._setting = setting
        self._count = 0
        self._cgroup_of: dict[int, str] = {}
        self._leaving: list[str] = []

    def _serve(self) -> bool:
        try:
            received = receive(self._control, (self._peer, self._setting.daemon))
        except ConnectionError as error:
            note(f"the connection of process {self._peer} ends: {error}")
            return False
        if received is None:
            return False
        name, fds = received
        try:
            *stdio, line = fds[:4]
            try:
                self._start(name, stdio, line, fds[4:])
            except (RefusedError, OSError) as error:
                text, hint = (error.text, error.hint) if isinstance(error, RefusedError) else (str(error), "")
                note(f"cannot start {name}: {text}")
                tell(line, b"refused\0" + text.encode("utf-8", "replace") + b"\0" + hint.encode("utf-8", "replace"))
        finally:
            close_all(fds)
        return True

    def _start(self, name: str, stdio: list[int], line: int, client: list[int]) -> None:
        """Raises RefusedError."""
        if len(self._supervisors) >= SERVERS:
            raise RefusedError(f"{SERVERS} servers run already")
        registered = read(self._setting.registry, name)
        account = self._account(registered, client)
        cgroup = self._cgroup(registered)
        pid = self._supervise(SystemOrder(registered, account, cgroup), stdio, line)
        if cgroup and pid:
            self._cgroup_of[pid] = cgroup
        elif cgroup:
            self._leaving.append(cgroup)

    def _account(self, registered: Registered, client: list[int]) -> Account:
        """Whom it runs as. Raises RefusedError."""
        if bool(client) == registered.shared:
            expected = "none, for it is shared" if registered.shared else "one, for it is not shared"
            raise RefusedError(f"the daemon named {len(client)} clients, expected {expected}")
        caller = of_client(client[0]) if client else None
        setting = self._setting
        if caller is not None and caller.uid in (setting.daemon, os.geteuid()) and caller.uid != 0:
            raise RefusedError("its client is attestd itself")
        if registered.run_as == "isolated":
            if not registered.sandbox.limits.get(b"processes"):
                registered.sandbox.limits[b"processes"] = ISOLATED_PROCESSES
            return setting.isolated.account(registered.name, SHARED if caller is None else caller.uid)
        if registered.run_as.startswith("user:"):
            account = named(registered.run_as.removeprefix("user:"))
            if account.uid == 0 and registered.run_as != "user:root":
                raise RefusedError(f"the account {account.name!r} is root", 'say run_as = "user:root" if that is meant')
            if account.uid in (setting.daemon, os.geteuid()) and account.uid != 0:
                raise RefusedError(f"the account {account.name!r} is attestd's own")
            return account
        if registered.run_as != "caller" or caller is None:
            raise RefusedError(f"its file says server.run_as = {registered.run_as!r}", "see: attestd check-config")
        if caller.uid == 0:
            raise RefusedError("its client is root, whom no server runs as", 'use run_as = "isolated" or "user:NAME"')
        return caller

    def _cgroup(self, registered: Registered) -> str:
        """A new cgroup for it; empty where there are none. Raises RefusedError."""
        limits, offered = registered.sandbox.limits, self._setting.cgroups
        memory = limits.get(b"memory_mib", 0)
        if memory and "memory" not in offered.controllers:
            raise RefusedError("limits.memory_mib needs a cgroup", "give the launcher's unit Delegate=yes")
        if not offered:
            return ""
        self._count += 1
        try:
            return offered.make(f"server-{os.getpid()}-{self._count}", limits.get(b"processes", 0), memory)
        except OSError as error:
            raise RefusedError(f"cannot make its cgroup: {error.strerror}") from error

    def _cleared(self, ended: Iterable[int]) -> None:
        self._leaving += [self._cgroup_of.pop(pid) for pid in ended if pid in self._cgroup_of]

    def _tidy(self) -> bool:
        remain = super()._tidy()
        self._leaving = [path for path in self._leaving if not cgroups.removed(path)]
        if self._leaving:
            self._alert_until = time.monotonic() + ALERT_S
        return remain


class Reception(Launcher):
    """Accepts connections of the daemon and forks a desk for each."""

    def __init__(self, listener: socket.socket, setting: Setting) -> None:
        super().__init__(listener)
        self._setting = setting
        self._leaving: list[str] = []

    def _serve(self) -> bool:
        try:
            connection, _ = self._control.accept()
        except OSError:
            return True  # it has gone again
        with connection:
            pid, uid = peer_of(connection)
            if uid != self._setting.daemon:
                note(f"uid {uid} (process {pid}) is not the daemon's uid {self._setting.daemon}")
            elif len(self._supervisors) >= CONNECTIONS:
                note(f"{CONNECTIONS} connections of the daemon are open already")
            else:
                self._admit(connection, pid)
        return True

    def _admit(self, connection: socket.socket, peer: int) -> None:
        try:
            self._fork(partial(self._attend, connection, peer))
        except OSError as error:
            note(f"cannot serve process {peer}: {error.strerror}")

    def _attend(self, connection: socket.socket, peer: int) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_NAME, b"attestd-desk")
        Desk(connection, peer, self._setting).run()

    def _cleared(self, ended: Iterable[int]) -> None:
        for pid in ended:
            self._leaving += self._setting.cgroups.of(f"server-{pid}-")

    def _tidy(self) -> bool:
        remain = super()._tidy()
        self._leaving = [path for path in self._leaving if not cgroups.removed(path)]
        if self._leaving:
            self._alert_until = time.monotonic() + ALERT_S
        return remain


def note(text: str) -> None:
    """For the journal."""
    print(text[:500], file=sys.stderr, flush=True)  # noqa: T201 - standard error is the log here


def main(words: list[str]) -> None:
    """Be the launcher of system mode."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("error: cannot launch servers: got no socket, expected one of systemd (attestd-launcher.socket)")
    listener = socket.socket(fileno=LISTEN_FD)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        sys.exit("error: cannot launch servers: expected a sequenced-packet Unix socket (ListenSequentialPacket=)")
    os.set_inheritable(LISTEN_FD, False)  # noqa: FBT003 - the standard library's signature
    listener.setblocking(False)  # noqa: FBT003 - as above
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    os.environ.clear()
    try:
        setting = Setting(words)
    except (RefusedError, ValueError) as error:
        sys.exit(f"error: cannot launch servers: {error}")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, b"attestd-launch")
    gc.disable()
    gc.freeze()
    Reception(listener, setting).run()


if __name__ == "__main__":
    main(sys.argv[1:])
