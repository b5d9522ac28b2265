"""What the daemon answers about servers. Another user's own server does not exist for a user."""

from __future__ import annotations

from collections.abc import Sequence

from attestd.control import messages as m
from attestd.control import replies as r
from attestd.daemon import views
from attestd.daemon.app import Front
from attestd.daemon.asked import Asked, Caller
from attestd.daemon.config import BackPeer, ServerSettings
from attestd.daemon.registry import own_name, visible
from attestd.errors import Cause, ConfigurationError, NothingToDoError, NotPermittedError


class ServerAnswers(Asked):
    """Of one daemon."""

    async def servers(self, caller: Caller, request: m.ListServers) -> Sequence[r.Server]:
        """The registry."""
        del request
        sees = self._sees(caller)
        fronts = sorted(self._daemon.fronts.items())
        return [self._server(caller, front) for _, front in fronts if visible(front.owner, sees)]

    async def servers_show(self, caller: Caller, request: m.ShowServer) -> r.Server:
        """One server."""
        return self._server(caller, self._front(caller, request.name))

    async def servers_add(self, caller: Caller, request: m.AddServer) -> r.Server:
        """Register a server, in its file and at once."""
        daemon = self._daemon
        owner = caller.uid if request.own else None
        if request.own and (daemon.paths.user_mode or not daemon.settings.servers.users_may_add):
            raise NotPermittedError(
                f"cannot add the server {request.name!r} for you alone: this attestd does not let users add servers",
                hint="in user mode leave --own out; else ask an administrator, or see servers.users_may_add",
            )
        settings = _settings(request)
        front = self._opened(caller, settings, owner)
        return self._server(caller, front)

    def _opened(self, caller: Caller, settings: ServerSettings, owner: int | None) -> Front:
        daemon = self._daemon
        daemon.registry.check(settings, owner, daemon.fronts)
        whole = settings.name if owner is None else own_name(owner, settings.name)
        what = (settings.url or settings.socket or " ".join(settings.command))[:512]
        self._act(caller, "server.add", whole, {"transport": settings.transport, "command": what})
        daemon.approvals.store.drop_pins(whole)
        added = daemon.registry.add(settings, owner)
        try:
            front = daemon.open_front(added.settings, owner)
        except ConfigurationError:
            added.file.unlink(missing_ok=True)
            raise
        for name in [name for name, each in daemon.fronts.items() if _shadowed(name, each, front)]:
            daemon.close_front(name, Cause.SHUTTING_DOWN, "an administrator registered a server of that name")
        return front

    async def servers_trust(self, caller: Caller, request: m.TrustServer) -> r.Server:
        """Forget the pinned program; the next one that answers is pinned."""
        daemon = self._daemon
        front = self._front(caller, request.name)
        name = front.settings.name
        self._act(caller, "server.trust", name, {})
        if not daemon.approvals.store.drop_pins(name):
            raise NothingToDoError(f"cannot forget the program of {name!r}: none was pinned")
        return self._server(caller, front)

    async def servers_seal(self, caller: Caller, request: m.SealServer) -> r.Server:
        """Close its port to everybody else."""
        daemon = self._daemon
        front = self._front(caller, request.name)
        if front.owner is not None:
            raise ConfigurationError(f"cannot seal {front.settings.name!r}: it is one user's own")
        seal = daemon.seals.wanted(front.settings, "refuse" if request.refuse else "redirect")
        self._act(caller, "server.seal", request.name, {"port": seal.port, "direct": seal.how})
        daemon.seals.seal(seal)
        return self._server(caller, front)

    async def servers_unseal(self, caller: Caller, request: m.UnsealServer) -> r.Server:
        """Open it to everybody."""
        daemon = self._daemon
        seal = daemon.seals.find(request.name)
        if seal is None:
            raise NothingToDoError(f"cannot unseal {request.name!r}: it is not sealed")
        self._act(caller, "server.unseal", request.name, {"port": seal.port})
        daemon.seals.unseal(request.name)
        if request.name not in daemon.fronts:
            return r.Server(name=request.name, transport="http", state="not registered")
        return self._server(caller, daemon.fronts[request.name])

    async def servers_remove(self, caller: Caller, request: m.RemoveServer) -> r.Server:
        """Take a server out; its sessions end."""
        daemon = self._daemon
        front = self._front(caller, request.name)
        removed, name = self._server(caller, front), front.settings.name
        if daemon.seals.find(name) is not None:
            raise ConfigurationError(
                f"cannot remove the server {name!r}: it is sealed, and nobody could reach it any more",
                hint=f"open it first: attestctl servers unseal {name}",
            )
        daemon.registry.demand_removable(front)
        self._act(caller, "server.remove", name, {})
        daemon.registry.remove(front)
        daemon.close_front(name, Cause.SHUTTING_DOWN, "the server was removed")
        return removed

    def _front(self, caller: Caller, name: str) -> Front:
        daemon = self._daemon
        return daemon.fronts[daemon.registry.find(name, daemon.fronts, caller.uid, self._sees(caller))]

    def _server(self, caller: Caller, front: Front) -> r.Server:
        sees = self._sees(caller)
        seal = self._daemon.seals.find(front.settings.name)
        sealed = "" if seal is None else self._daemon.seals.state(seal)
        sessions = self._counts(sees).get(front.settings.name, 0)
        return views.server(front, self._daemon.registry.file(front), sessions, sealed, sees)


def _shadowed(name: str, front: Front, by: Front) -> bool:
    return by.owner is None and front.owner is not None and name.partition("@")[0] == by.settings.name


def _settings(request: m.AddServer) -> ServerSettings:
    return ServerSettings(
        name=request.name,
        transport=request.transport,
        command=request.command,
        env=dict(request.env),
        socket=request.path or "",
        url=request.url or "",
        token_file=request.token_file or "",
        header_files=dict(request.header_files),
        ca_file=request.ca_file or "",
        peer=BackPeer(program=request.program),
        run_as=request.run_as,
        shared=request.shared,
    )
