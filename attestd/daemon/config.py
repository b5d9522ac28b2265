"""Configuration files: strict, and every error names file, key or line, what was found and what is allowed."""

from __future__ import annotations

import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from attestd.daemon.http_settings import http_rules
from attestd.daemon.stdio_settings import stdio_rules
from attestd.errors import ConfigurationError
from attestd.wire.model import Limits

SERVER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with its terminating zero."""

Positive = Annotated[int, msgspec.Meta(ge=1)]
OrNone = Annotated[int, msgspec.Meta(ge=0)]


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """``[limits]``: every limit carries its unit."""

    message_bytes: Positive = 16 * 1024 * 1024
    """Largest message of a client or server, bytes."""
    depth: Positive = 64
    """Deepest nesting of arrays and objects in a message."""
    open_requests: Positive = 256
    """Requests without an answer on one connection."""
    held_bytes: Positive = 1024 * 1024
    """Bytes of messages that wait on one connection until the client has answered the challenge."""
    connections_per_uid: Positive = 1024
    """Open connections of one user, to all servers together; likewise sessions over HTTP, which outlive those."""
    connections_per_minute: Annotated[int, msgspec.Meta(ge=0)] = 0
    """New connections of one user in a minute, to all servers together; 0: 600 on a system installation, any number in
    user mode."""
    attesting_per_uid: Positive = 256
    """Connections of one user that wait to be attested."""
    refusals_per_minute: Positive = 20
    """Refusals that are alike (same cause, method and name), recorded one by one in a minute on one connection, or for
    one user outside connections; the others are counted, and one record says how many."""
    attest_seconds: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """How long collecting evidence may take: a file system that does not answer ends in a refusal."""

    @cached_property
    def wire(self) -> Limits:
        """The part that one session needs."""
        return Limits(
            message_bytes=self.message_bytes,
            depth=self.depth,
            open_requests=self.open_requests,
            held_bytes=self.held_bytes,
        )


class ApprovalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[approval]``."""

    approvers: tuple[str, ...] = ()
    """Program digests that may approve besides root and clean chains; for automation and throw-away instances."""
    code_minutes: Positive = 15
    """How long an approval code lives after the last refusal that it stands for, minutes."""


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity]``: how SPIFFE IDs are named."""

    trust_domain: str = "attestd.local"
    """The trust domain in every SPIFFE ID."""
    host_id: str = ""
    """Empty: derived from the machine id."""


class ListenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[listen]``: the loopback port for clients that know only URLs, `http://127.0.0.1:PORT/SERVER/mcp`."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Port on 127.0.0.1 and ::1, for all servers; 0: none. Unix sockets are stronger: TCP names no writer."""
    origins: tuple[str, ...] = ()
    """Values of `Origin` that may use HTTP besides the service's own, for pages that you trust."""


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[servers]``: who may register servers, on a system installation."""

    users_may_add: bool = False
    """Whether users may register servers that they run themselves, each for itself alone."""


class SealSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[seal]`: servers that `attestctl servers seal` made reachable only through attestd."""

    on_stop: Literal["auto", "open", "stay"] = "auto"
    """What an orderly stop does with the seals: `open` undoes them until the next start, `stay` leaves them. `auto`:
    `stay` where the daemon runs as an ordinary user, whose every program may stop it, else `open`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """attestd.toml."""

    limits: LimitSettings = LimitSettings()
    approval: ApprovalSettings = ApprovalSettings()
    identity: IdentitySettings = IdentitySettings()
    listen: ListenSettings = ListenSettings()
    seal: SealSettings = SealSettings()
    servers: RegistrySettings = RegistrySettings()
    note: str = ""
    """Shown by ``attestctl status``: what this instance is for."""


class BackPeer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who must answer on a Unix-socket back end."""

    uid: int | None = None
    """None: the daemon's own uid, or root."""
    exe_sha256: str | None = None
    """Digest that its executable must have, 64 hex digits; it counts for started servers too."""
    program: str | None = None
    """Program digest (executable and script, see `attestctl inspect`), 64 hex digits. None on loopback HTTP: the
    program that answers first is pinned."""


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[server.limits]`: for a started server; 0: none of its own. Neither it nor what it starts can raise them."""

    open_files: OrNone = 0
    """Open files of one process."""
    processes: OrNone = 0
    """Processes of the uid that the server runs as, all of its programs together; in system mode also of the server's
    cgroup, and at most 512 for `isolated`."""
    address_space_mib: OrNone = 0
    """Address space of one process, MiB. Some runtimes (Node, Java) reserve much more than they use."""
    file_mib: OrNone = 0
    """Largest file that one process may write, MiB."""
    memory_mib: OrNone = 0
    """Memory of the server and all that it starts, MiB; in system mode only."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]`` of one file in servers.d."""

    name: str
    """What clients and people call it; also the name of its socket."""
    transport: Literal["stdio", "unix", "http", "sse"]
    """`stdio`: attestd starts `command`; `unix`: it connects to `socket`; `http`: Streamable HTTP at `url`; `sse`:
    HTTP+SSE of 2024-11-05 at `url`."""
    command: tuple[str, ...] = ()
    """The program and its arguments, for `stdio`."""
    env: dict[str, str] = {}
    """Environment besides the standard one; nothing is inherited."""
    cwd: str = "/"
    """Working directory of the server."""
    socket: str = ""
    """Absolute path of the server's own socket, for `unix`; with `http` and `sse`: HTTP is spoken over it."""
    url: str = ""
    """Address of the server, for `http` and `sse`: `http://` on this machine, `https://` anywhere."""
    token_file: str = ""
    """Absolute path of a file whose one line is sent as `Authorization: Bearer`, for `http` and `sse`; mode 0600."""
    header_files: dict[str, str] = {}
    """Further headers: name and absolute path of the file whose one line is the value; mode 0600."""
    ca_file: str = ""
    """Absolute path of the certificate authorities (PEM) that may vouch for `url`, instead of the system's."""
    peer: BackPeer = BackPeer()
    run_as: str = "caller"
    """Whom a started server runs as. `caller`: who called it, each caller with a server of its own; `user:NAME`: that
    local account; `isolated`: a uid that belongs to this server and this caller alone, without groups. User mode knows
    only `caller`: you. Nobody's server runs as root, but that of `user:root`."""
    network: bool = True
    """False: a started server has no network at all, loopback included; Unix sockets that it can reach remain."""
    read_only: bool = False
    """True: a started server may write to no file (Landlock, Linux 6.2)."""
    writable: tuple[str, ...] = ()
    """Absolute paths that it may write to all the same, each with everything below it."""
    limits: ServerLimits = ServerLimits()
    shared: bool = False
    """One back end for all callers instead of one for each connection."""
    bridge: Literal["auto", "always", "never"] = "auto"
    """Translation for clients of the other protocol era. `auto`: unless the client falls back to the server's era by
    itself, which shows when its `server/discover` is refused; `always`: for every client; `never`."""


class _ServerFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: ServerSettings


T = TypeVar("T")


def load_settings(path: Path) -> Settings:
    """attestd.toml; a missing file is all defaults."""
    return _load(path, Settings) if path.exists() else Settings()


def load_servers(
    directory: Path, sockets: Path, *, user_mode: bool, only: Path | None = None
) -> dict[str, ServerSettings]:
    """Every ``*.toml`` of ``directory``, or one of them, by server name. A missing directory is no server."""
    servers: dict[str, ServerSettings] = {}
    files: dict[str, Path] = {}
    for path in (only,) if only is not None else sorted(directory.glob("*.toml")) if directory.is_dir() else ():
        server = _load(path, _ServerFile).server
        validate_server(server, path, sockets, user_mode=user_mode)
        if server.name in servers:
            raise ConfigurationError(
                f"{path}: server {server.name!r} is already defined in {files[server.name]}",
                hint="give one of them another name, or remove it",
            )
        if server.transport == "stdio" and not user_mode and path.stem != server.name:
            raise ConfigurationError(
                f"{path}: server.name: found {server.name!r}, expected {path.stem!r}, as the file is called",
                hint="the launcher finds the file by the server's name: rename one of them",
            )
        servers[server.name] = server
        files[server.name] = path
    return servers


def server_file(directory: Path, name: str) -> Path:
    """The file that defines a server, whatever it is called; ``NAME.toml`` if none does."""
    usual = directory / f"{name}.toml"
    for path in (usual, *sorted(directory.glob("*.toml"))):
        try:
            if path.is_file() and _load(path, _ServerFile).server.name == name:
                return path
        except ConfigurationError:
            continue  # it defines nothing; the next start says why
    return usual


def remove_server(directory: Path, name: str) -> None:
    """Remove the file that defines a server. Raises ConfigurationError."""
    path = server_file(directory, name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot remove {path}: {error.strerror}", hint="check the directory's mode"
        ) from error


def validate_server(server: ServerSettings, path: Path, sockets: Path, *, user_mode: bool) -> None:
    """What the types cannot say. Raises ConfigurationError."""

    def refuse(key: str, found: object, expected: str) -> ConfigurationError:
        return ConfigurationError(
            f"{path}: server.{key}: found {found!r}, expected {expected}", hint="correct the file"
        )

    stdio, unix = server.transport == "stdio", server.transport == "unix"
    words = (*server.command, *server.env, *server.env.values(), server.cwd)
    long = len(os.fsencode(sockets / f"{server.name}.sock")) > SOCKET_PATH_BYTES
    rules: tuple[tuple[bool, str, object, str], ...] = (
        (
            not SERVER_NAME.match(server.name),
            "name",
            server.name,
            "1 to 64 of a-z 0-9 . _ -, the first a letter or digit",
        ),
        (long, "name", server.name, f"a socket path of at most {SOCKET_PATH_BYTES} bytes under {sockets}"),
        (stdio and not server.command, "command", list(server.command), "the program and its arguments"),
        (stdio and bool(server.socket), "socket", server.socket, "no socket for transport stdio"),
        (
            unix and not server.socket.startswith("/"),
            "socket",
            server.socket,
            "the absolute path of the server's socket",
        ),
        (unix and bool(server.command), "command", list(server.command), "no command: attestd does not start it"),
        (any("\0" in word for word in words), "command", "a NUL character", "text without NUL"),
        *stdio_rules(server, user_mode=user_mode),
        *http_rules(server),
    )
    for broken, key, found, expected in rules:
        if broken:
            raise refuse(key, found, expected)


def write_server(directory: Path, server: ServerSettings) -> Path:
    """Add one server file, written whole or not at all."""
    path = directory / f"{server.name}.toml"
    lines = ["[server]", f"name = {_toml(server.name)}", f"transport = {_toml(server.transport)}"]
    if server.command:
        lines.append("command = [" + ", ".join(_toml(word) for word in server.command) + "]")
    if server.env:
        lines.append("env = { " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in server.env.items()) + " }")
    texts = ("socket", "url", "token_file", "ca_file")
    lines += [f"{key} = {_toml(value)}" for key in texts if (value := getattr(server, key))]
    if server.header_files:
        pairs = (f"{_toml(k)} = {_toml(v)}" for k, v in server.header_files.items())
        lines.append("header_files = { " + ", ".join(pairs) + " }")
    lines += [
        f"cwd = {_toml(server.cwd)}",
        f"run_as = {_toml(server.run_as)}",
        f"shared = {str(server.shared).lower()}",
        f"bridge = {_toml(server.bridge)}",
    ]
    if server.transport == "stdio":
        lines += [f"network = {str(server.network).lower()}", f"read_only = {str(server.read_only).lower()}"]
        lines.append("writable = [" + ", ".join(_toml(path) for path in server.writable) + "]")
        lines += [
            "[server.limits]",
            *(f"{key} = {value}" for key, value in msgspec.structs.asdict(server.limits).items()),
        ]
    if server.peer != BackPeer():
        lines.append("[server.peer]")
        lines += [f"uid = {server.peer.uid}"] if server.peer.uid is not None else []
        lines += [f"exe_sha256 = {_toml(server.peer.exe_sha256)}"] if server.peer.exe_sha256 is not None else []
        lines += [f"program = {_toml(server.peer.program)}"] if server.peer.program is not None else []
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = directory / f".{server.name}.new"
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    return path


def _toml(text: str) -> str:
    escaped = "".join(
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" if c not in '"\\' else f"\\{c}" for c in text
    )
    return f'"{escaped}"'


def _load(path: Path, kind: type[T]) -> T:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read {path}: {reason}", hint="correct the file or its mode") from error
    try:
        return msgspec.convert(tomllib.loads(text), kind, strict=True)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}", hint="correct the file") from error
    except msgspec.ValidationError as error:
        allowed = _allowed(kind, str(error))
        raise ConfigurationError(
            f"{path}: {error}{_line(text, str(error))}", hint=allowed or "correct the file"
        ) from error


def _line(text: str, error: str) -> str:
    found = re.search(r"unknown field `([^`]+)`", error) or re.search(r"`\$\.(?:.*\.)?([\w-]+)(?:\[[^`]*)?`", error)
    if found is None:
        return ""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[?(?:[\w-]+\.)*{re.escape(found[1])}\b", line):
            return f" (line {number})"
    return ""


def _allowed(kind: type, error: str) -> str:
    """The keys that may stand where an unknown one was found."""
    found = re.search(r"unknown field `[^`]+`(?: - at `\$\.?([^`]*)`)?", error)
    if found is None:
        return ""
    current: type = kind
    for part in filter(None, (found[1] or "").split(".")):
        for field in msgspec.structs.fields(current):
            if field.name == part and isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                current = field.type
    return "allowed here: " + ", ".join(field.name for field in msgspec.structs.fields(current))
