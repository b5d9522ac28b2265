"""``attestctl servers``: the registry of MCP servers that clients reach through attestd."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import cast

import click
import msgspec

from attestd.cli.command import Command, LazyGroup, client_of, json_option
from attestd.cli.output import ask, console, fields, line, remark, table
from attestd.control.messages import (
    AddServer,
    ListServers,
    RemoveServer,
    SealServer,
    ShowServer,
    Transport,
    TrustServer,
    UnsealServer,
)
from attestd.control.replies import Server
from attestd.errors import UsageError


@click.group(cls=LazyGroup, name="servers", example="attestctl servers list")
def command() -> None:
    """See and change which servers attestd guards."""


@command.command(cls=Command, name="list", example="attestctl servers list --json")
@json_option
@click.pass_context
def list_servers(ctx: click.Context, as_json: bool) -> None:
    """List the registered servers."""
    found = ask(client_of(ctx), ListServers(), as_json=as_json)
    if not found:
        remark("no server is registered")
    elif not as_json:
        rows = ((s.name, s.transport, s.state, str(s.sessions), _target(s)) for s in found)
        table(console(), ("server", "transport", "state", "sessions", "runs"), rows)


def _target(server: Server) -> str:
    url = server.url and (f"{server.url} over {server.path}" if server.path else server.url)
    return shlex.join(server.command) or url or server.path or ""


@command.command(cls=Command, name="show", example="attestctl servers show time")
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show one server.

    What runs, as whom, and the socket that clients use.
    """
    for server in ask(client_of(ctx), ShowServer(name=name), as_json=as_json):
        if not as_json:
            _show(server)


def _show(server: Server) -> None:
    to = console()
    line(to, "server ", server.name, "bold")
    pairs = [
        ("state", server.state),
        ("transport", server.transport),
        ("runs", _target(server)),
        ("as", server.run_as),
        ("environment", ", ".join(server.env)),
        ("shared", "one back end for all callers" if server.shared else "a back end for each connection"),
        ("socket", server.socket),
        ("for", "" if server.owner is None else f"uid {server.owner} alone"),
        ("sealed", server.sealed and f"direct connections: {server.sealed}"),
        ("sessions", str(server.sessions)),
        ("defined in", server.origin),
        ("problem", server.detail),
    ]
    fields(to, pairs, indent=2)


@command.command(cls=Command, name="add", example="attestctl servers add clock -- mcp-server-time --local-timezone UTC")
@click.argument("name")
@click.argument("server_command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARGUMENT]...]")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "unix", "http", "sse"]),
    help="How attestd reaches the server: by default http with --url, else stdio.",
)
@click.option("--path", metavar="PATH", help="The server's own socket; with --url, HTTP is spoken over it.")
@click.option("--url", metavar="URL", help="Address of an HTTP server: http:// on this machine, https:// anywhere.")
@click.option("--token-file", metavar="FILE", help="File with the token that the server wants (mode 0600).")
@click.option("--header", "headers", multiple=True, metavar="NAME=FILE", help="Further header, its value in a file.")
@click.option("--ca-file", metavar="FILE", help="Certificate authorities for the URL, instead of the system's.")
@click.option("--program", metavar="DIGEST", help="Program digest that must answer; else the first one is pinned.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment; nothing else is inherited.")
@click.option("--shared", is_flag=True, help="One back end for all callers instead of one for each connection.")
@click.option("--own", is_flag=True, help="For you alone, where the administrator lets users add servers of theirs.")
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    /,
    *,
    name: str,
    server_command: tuple[str, ...],
    transport: str | None,
    path: str | None,
    url: str | None,
    token_file: str | None,
    headers: tuple[str, ...],
    ca_file: str | None,
    program: str | None,
    env: tuple[str, ...],
    shared: bool,
    own: bool,
    as_json: bool,
) -> None:
    """Register a server and open its socket.

    The command is looked up now, in your PATH, and kept as an absolute path: the daemon inherits no PATH of yours.
    """
    request = AddServer(
        name=name,
        transport=cast("Transport", transport or ("http" if url else "stdio")),
        command=_absolute(server_command),
        path=path,
        url=url,
        token_file=token_file and str(Path(token_file).absolute()),
        header_files={name: str(Path(file).absolute()) for name, file in map(_assignment, headers)},
        ca_file=ca_file and str(Path(ca_file).absolute()),
        program=program,
        env=dict(map(_assignment, env)),
        shared=shared,
        own=own or msgspec.UNSET,
    )
    for server in ask(client_of(ctx), request, as_json=as_json):
        if not as_json:
            _show(server)


def _absolute(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        return words
    found = shutil.which(words[0])
    if found is None:
        raise UsageError(
            f"cannot find the program {words[0]!r}: no such executable file in PATH", hint="give its absolute path"
        )
    return (os.path.abspath(found), *words[1:])  # noqa: PTH100 - links stay: a venv's python is known by its path


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"cannot read {text!r}: expected NAME=VALUE")
    return name, value


@command.command(cls=Command, name="trust", example="attestctl servers trust time")
@click.argument("name")
@json_option
@click.pass_context
def trust(ctx: click.Context, name: str, as_json: bool) -> None:
    """Accept another program at a server's address.

    attestd pins the program that answers first. After an update of the server, this forgets it: the next program that
    answers is pinned.
    """
    for server in ask(client_of(ctx), TrustServer(name=name), as_json=as_json):
        if not as_json:
            line(console(), "the next program that answers is trusted as ", server.name)


@command.command(cls=Command, name="seal", example="attestctl servers seal notes")
@click.argument("name")
@click.option("--refuse", is_flag=True, help="Refuse direct connections instead of serving them through attestd.")
@json_option
@click.pass_context
def seal(ctx: click.Context, name: str, *, refuse: bool, as_json: bool) -> None:
    """Make a server on this machine's TCP port reachable only through attestd.

    Connections of other programs to its port then arrive at attestd, which attests them and serves what they are
    granted: the URLs in their configurations stay as they are. Connections that exist are cut. The seal is in the
    kernel, so it outlives a crash of the daemon. Needs the capability NET_ADMIN.
    """
    for server in ask(client_of(ctx), SealServer(name=name, refuse=refuse), as_json=as_json):
        if not as_json:
            line(console(), "sealed ", f"{server.name}; direct connections: {server.sealed}")


@command.command(cls=Command, name="unseal", example="attestctl servers unseal notes")
@click.argument("name")
@json_option
@click.pass_context
def unseal(ctx: click.Context, name: str, as_json: bool) -> None:
    """Open a sealed server's port to everybody again.

    Without a running daemon, root does it with: attestd unseal --all
    """
    for server in ask(client_of(ctx), UnsealServer(name=name), as_json=as_json):
        if not as_json:
            line(console(), "open to everybody: ", server.name)


@command.command(cls=Command, name="remove", example="attestctl servers remove clock")
@click.argument("name")
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, as_json: bool) -> None:
    """Take a server out; its sessions end."""
    for server in ask(client_of(ctx), RemoveServer(name=name), as_json=as_json):
        if not as_json:
            line(console(), "removed ", server.name)
