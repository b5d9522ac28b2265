"""Which servers there are, and whose: registered for everybody by an administrator, or by a user for itself.

In user mode there is ``servers.d``, and nothing else. On a system installation:
- ``servers.d`` is root's, and read only. It alone may name commands.
- What ``attestctl servers add`` registered lies in the daemon's state, below ``all`` for everybody, else below the
  user's uid: servers that somebody else has started, reached by socket or address.
- A user's own server is called ``NAME@UID`` everywhere, so it is nobody else's, whatever others call theirs. Its back
  end must run as that user, and the daemon reads no file for it.
- A name that is registered for everybody is nobody's own: adding it is refused, and where the administrator takes it
  later, the user's server is not served any more.
- A file of a user that cannot be used any more stops nobody: it is left out, and that user is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from attestd.control.routes import Right
from attestd.daemon.config import (
    ServerSettings,
    Settings,
    load_servers,
    remove_server,
    server_file,
    validate_server,
    write_server,
)
from attestd.daemon.paths import Paths
from attestd.errors import ConfigurationError, NothingToDoError
from attestd.wire.urls import parse_url

if TYPE_CHECKING:
    from attestd.daemon.app import Front

EVERYBODY: Final = "all"
PLACE: Final = Path("the new server")
MOST_OWN: Final = 32
"""Servers that one user may register for itself."""


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """One server."""

    settings: ServerSettings
    """Its ``name`` is the whole one."""
    file: Path
    owner: int | None = None
    """The user that it is for; None: everybody."""


class Registry:
    """Files in, registered servers out. It opens nothing."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.troubles: dict[int, str] = {}
        """What is wrong with the own servers of a uid, as of the last ``load``."""

    def load(self, settings: Settings) -> dict[str, Registered]:
        """Every server by its whole name. Raises ConfigurationError for what an administrator registered."""
        paths = self._paths
        found = self._read(paths.servers)
        if paths.user_mode:
            return found
        for name, server in self._read(paths.registry / EVERYBODY).items():
            if name in found:
                raise ConfigurationError(
                    f"{server.file}: server {name!r} is already defined in {found[name].file}",
                    hint=f"remove one of them: {server.file}",
                )
            found[name] = server
        self.troubles = {}
        if settings.servers.users_may_add:
            for uid in self._owners():
                self._add_own(found, uid)
        return found

    def find(self, name: str, fronts: dict[str, Front], uid: int, sees: int | None) -> str:
        """The whole name of what ``uid`` calls so. Raises NothingToDoError, the same for what is another user's."""
        for whole in (name, own_name(uid, name)):
            front = fronts.get(whole)
            if front is not None and visible(front.owner, sees):
                return whole
        raise NothingToDoError(f"cannot find the server {name!r}", hint="list them with: attestctl servers list")

    def check(self, server: ServerSettings, owner: int | None, fronts: dict[str, Front]) -> None:
        """Whether one more may be added. Raises ConfigurationError."""
        paths = self._paths
        validate_server(server, PLACE, self._sockets(owner), user_mode=paths.user_mode)
        if owner is not None:
            demand_own(server, PLACE)
            if sum(front.owner == owner for front in fronts.values()) >= MOST_OWN:
                raise ConfigurationError(
                    f"cannot add the server {server.name!r}: you have {MOST_OWN}, the most allowed"
                )
        elif not paths.user_mode and server.transport == "stdio":
            raise ConfigurationError(
                f"cannot add the server {server.name!r}: attestd starts only what root has written down",
                hint=f"write {paths.servers}/{server.name}.toml as root, then: attestctl reload",
            )
        if server.name in fronts or (owner is not None and own_name(owner, server.name) in fronts):
            raise ConfigurationError(
                f"cannot add the server {server.name!r}: there is one of that name",
                hint=f"remove it first: attestctl servers remove {server.name}",
            )

    def add(self, server: ServerSettings, owner: int | None) -> Registered:
        """Write one that was checked. Raises ConfigurationError."""
        return self._registered(server, write_server(self._directory(owner), server), owner)

    def demand_removable(self, front: Front) -> None:
        """Whether it can be taken away here. Raises ConfigurationError."""
        name, file = front.settings.name, self.file(front)
        if not self._paths.user_mode and file.parent == self._paths.servers:
            raise ConfigurationError(
                f"cannot remove the server {name!r}: it is defined in {file}",
                hint="remove that file as root, then: attestctl reload",
            )

    def remove(self, front: Front) -> None:
        """Take its file away. Raises ConfigurationError."""
        remove_server(self._directory(front.owner), front.settings.name.partition("@")[0])

    def file(self, front: Front) -> Path:
        """Where it is defined."""
        name = front.settings.name.partition("@")[0]
        written = server_file(self._directory(front.owner), name)
        return written if written.is_file() else server_file(self._paths.servers, name)

    def right(self, name: str, fronts: dict[str, Front], uid: int) -> Right:
        """The right to change what ``uid`` calls so: its own server is its own affair."""
        for whole in (name, own_name(uid, name)):
            if whole in fronts:
                return Right.APPROVE if fronts[whole].owner == uid else Right.MANAGE
        return Right.MANAGE

    def _read(self, directory: Path) -> dict[str, Registered]:
        servers = load_servers(directory, self._paths.sockets, user_mode=self._paths.user_mode)
        return {
            name: Registered(settings=server, file=server_file(directory, name)) for name, server in servers.items()
        }

    def _owners(self) -> list[int]:
        registry = self._paths.registry
        names = [path.name for path in registry.iterdir()] if registry.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def _add_own(self, found: dict[str, Registered], uid: int) -> None:
        directory = self._directory(uid)
        problems = []
        for path in sorted(directory.glob("*.toml"))[:MOST_OWN]:
            try:
                server = read_own(path, self._sockets(uid))
            except ConfigurationError as error:
                problems.append(error.message)
                continue
            if server.name in found:
                problems.append(f"your server {server.name!r} is not served: the name is registered for everybody")
            else:
                found[own_name(uid, server.name)] = self._registered(server, path, uid)
        if problems:
            self.troubles[uid] = "; ".join(problems)

    def _registered(self, server: ServerSettings, file: Path, owner: int | None) -> Registered:
        settings = server if owner is None else own_settings(server, owner)
        return Registered(settings=settings, file=file, owner=owner)

    def _directory(self, owner: int | None) -> Path:
        if self._paths.user_mode:
            return self._paths.servers
        return self._paths.registry / (EVERYBODY if owner is None else str(owner))

    def _sockets(self, owner: int | None) -> Path:
        return self._paths.sockets if owner is None else self._paths.sockets / str(owner)


def socket_of(sockets: Path, name: str) -> Path:
    """Where a server is served."""
    plain, _, owner = name.partition("@")
    return sockets / owner / f"{plain}.sock"


def own_name(uid: int, name: str) -> str:
    """The whole name of a user's own server."""
    return f"{name}@{uid}"


def visible(owner: int | None, sees: int | None) -> bool:
    """Whether a server exists for whoever sees this."""
    return owner is None or sees is None or owner == sees


def read_own(path: Path, sockets: Path) -> ServerSettings:
    """One file of a user's own. Raises ConfigurationError."""
    (server,) = load_servers(path.parent, sockets, user_mode=False, only=path).values()
    demand_own(server, path)
    return server


def demand_own(server: ServerSettings, place: Path) -> None:
    """What a user may not register for itself. Raises ConfigurationError."""
    files = any((server.token_file, server.ca_file, server.header_files))
    rules = (
        (
            server.transport == "stdio",
            "transport",
            server.transport,
            "unix, http or sse: attestd starts nothing for it",
        ),
        (files, "token_file", "a file", "no token, header or ca file: the daemon would read it with its own rights"),
        (server.shared, "shared", server.shared, "false"),
        (server.run_as != "caller", "run_as", server.run_as, '"caller"'),
    )
    for broken, key, found, expected in rules:
        if broken:
            raise ConfigurationError(f"{place}: server.{key}: found {found!r}, expected {expected}")


def own_settings(server: ServerSettings, uid: int) -> ServerSettings:
    """With its whole name, and held to its user where a process of this machine answers."""
    local = bool(server.socket) or (bool(server.url) and parse_url(server.url).loopback)
    peer = msgspec.structs.replace(server.peer, uid=uid) if local else server.peer
    return msgspec.structs.replace(server, name=own_name(uid, server.name), peer=peer)
