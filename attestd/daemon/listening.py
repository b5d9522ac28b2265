"""Where listening sockets come from: the service manager, an earlier run of ours, or we make them.

A socket of a server outlives a restart where the manager holds it: its file stays, connections queue, and the next run
takes them. Without a manager the file goes with the daemon.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from attestd.daemon.activation import SERVER, Passed, require_at, require_loopback
from attestd.daemon.notify import Notifier
from attestd.daemon.platforms import loopback_refusal
from attestd.enforcement.listener import BACKLOG, listen
from attestd.enforcement.tcp_listener import listen_loopback
from attestd.errors import ConfigurationError


class Listening:
    """The sockets of one instance. What was passed and is not wanted is closed by ``settle``."""

    def __init__(self, passed: Passed | None = None, notifier: Notifier | None = None) -> None:
        """Without arguments every socket is made here."""
        passed = passed or Passed()
        self._notifier = notifier or Notifier()
        self._control = passed.control
        self._http = passed.http
        self._servers = dict(passed.servers)

    def control(self, path: Path) -> socket.socket | None:
        """The control socket that was passed; None: there is none, make it. Raises ConfigurationError."""
        sock, self._control = self._control, None
        if sock is not None:
            require_at(sock, path)
        return sock

    def server(self, name: str, path: Path) -> socket.socket:
        """The socket of one server at ``path``: held since an earlier run, or made. Raises ConfigurationError."""
        sock = self._servers.pop(name, None)
        if sock is not None and not os.path.lexists(path):
            self._notifier.drop(SERVER + name)  # somebody removed its file, so nobody can reach it
            sock.close()
            sock = None
        if sock is not None:
            require_at(sock, path)
            sock.listen(BACKLOG)  # again: connections shall be told our pid, not that of the earlier run
            return sock
        sock = listen(path)
        self._notifier.store(SERVER + name, sock)
        return sock

    def loopback(self, port: int) -> list[socket.socket]:
        """Listeners on the loopback addresses. Raises ConfigurationError."""
        if why := loopback_refusal():
            raise ConfigurationError(
                f"cannot listen on port {port} of the loopback addresses: {why}",
                hint="set listen.port to 0; HTTP is served on the Unix sockets, and attestd-connect needs no port",
            )
        passed, self._http = self._http, ()
        if passed:
            require_loopback(passed, port)
            return list(passed)
        return listen_loopback(port)

    def settle(self, sockets: Path, port: int) -> None:
        """Everything is open: close what nobody wants. Raises ConfigurationError for an HTTP socket that is unwanted.

        ``sockets``: the directory of the servers' sockets; ``port``: the one that is configured; 0: none.
        """
        if self._http:
            raise ConfigurationError(
                f"cannot use the HTTP socket of the service manager: listen.port is {port}",
                hint="name its port in attestd.toml, or: systemctl disable --now attestd-http.socket",
            )
        for name, sock in self._servers.items():  # of servers that are registered no more
            path = Path(sock.getsockname())
            sock.close()
            if path.is_relative_to(sockets):
                self.gone(name, path)
        self._servers = {}

    def gone(self, name: str, path: Path) -> None:
        """The server is served no more: nobody shall connect and wait for ever."""
        path.unlink(missing_ok=True)
        self._notifier.drop(SERVER + name)

    def paused(self, path: Path) -> None:
        """The daemon ends. Where the manager holds the socket its file stays, for whoever comes next."""
        if not self._notifier.present:
            path.unlink(missing_ok=True)
