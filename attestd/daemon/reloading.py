"""Reading settings, servers and policy again while everything runs.

What can be refused is refused before anything changes: files are read, and new sockets are opened, first. A server
whose settings changed gives up its socket before it opens it again; should somebody have taken its place in that
moment, it is not served, which is told, and keeps nothing else back: least of all a policy that forbids.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from attestd.daemon.admitting import renew_admission
from attestd.daemon.config import load_settings
from attestd.daemon.paths import policy_directory
from attestd.daemon.policy import load_policy
from attestd.daemon.registry import Registered, socket_of
from attestd.errors import Cause, ConfigurationError

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon


def reload(daemon: Daemon) -> tuple[str, ...]:
    """What changed, in words. Raises AttestdError, and then nothing changed."""
    settings = load_settings(daemon.paths.config_file)
    servers = daemon.registry.load(settings)
    policy = load_policy(policy_directory(), daemon.paths.policies, daemon.host_id)
    sockets = _new_sockets(daemon, servers, settings.listen.port)
    changes: list[str] = []
    now = {name: server.settings for name, server in servers.items()}
    for name in [n for n, f in daemon.fronts.items() if now.get(n) != f.settings]:
        daemon.close_front(name, Cause.SHUTTING_DOWN, "the server's configuration changed")
        changes.append(f"server {name}: {'changed' if name in servers else 'removed'}")
    for name, server in servers.items():
        if name not in daemon.fronts:
            changes.append(f"server {name}: {_opened(daemon, server, sockets.get(name))}")
    daemon.tell_owners()
    if settings != daemon.settings:
        changes.append("settings: changed")
    daemon.settings = settings
    renew_admission(daemon.admission, settings.limits, user_mode=daemon.paths.user_mode)
    if policy.engine.generation != daemon.policy.engine.generation or policy.table != daemon.policy.table:
        changes.append("policy: changed")
        daemon.activate(policy)
    return tuple(changes)


def _new_sockets(daemon: Daemon, servers: dict[str, Registered], port: int) -> dict[str, socket.socket]:
    """Listen for every server that is new, and on the port. Raises ConfigurationError, and then on nothing new."""
    sockets: dict[str, socket.socket] = {}
    try:
        for name, server in servers.items():
            if name not in daemon.fronts:
                sockets[name] = daemon.listen(server.settings, server.owner)
        daemon.http.listen(port)
    except BaseException:
        for name, sock in sockets.items():
            sock.close()
            daemon.listening.gone(name, socket_of(daemon.paths.sockets, name))
        raise
    return sockets


def _opened(daemon: Daemon, server: Registered, sock: socket.socket | None) -> str:
    try:
        daemon.open_front(server.settings, server.owner, sock)
    except ConfigurationError as error:
        daemon.trouble(error.message, server.owner)
        return f"not served: {error.message}"
    return "open"
