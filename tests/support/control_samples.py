"""Replies as the daemon might give them, hostile names among them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attestd.control import replies as r

NOW = datetime(2026, 7, 30, 14, 3, 5, tzinfo=UTC)
EVIL = "x\x1b[2J\x07\u202egnp.\u2066\x9b31m\r\n[red]boo[/red] :smile: \u200b\x7f"
"""A name that clears the screen, rings, reverses, colours, breaks the line and speaks rich markup."""


def identity(title: str, **changes: Any) -> r.Identity:
    """An attested program of level 1."""
    values: dict[str, Any] = {
        "spiffe_id": f"spiffe://local/host/abc/uid/0/program/{'ab' * 20}/chain/{'cd' * 20}",
        "program": "ab" * 32,
        "chain": "cd" * 32,
        "instance": "boot-id/4026531840/1",
        "level": 1,
        "recorded": False,
        "reasons": (
            r.Reason(cap=1, code="exe_forgeable", detail="user namespaces are allowed"),
            r.Reason(cap=4, code="note"),
        ),
        "display": f"{title} · sha256 abababab · L1 | via zsh, attestd-connect | in ghostty | tty pts/3",
        "kind": "program",
        "title": title,
        "uid": 0,
        **changes,
    }
    return r.Identity(**values)


def link(pid: int, comm: str, cls: str) -> r.Link:
    """One process."""
    host = cls == "host"
    return r.Link(
        pid=pid,
        start=pid * 100,
        uid=0,
        cls=cls,
        exe=r.Executable(path=f"/usr/bin/{comm}", sha256="ab" * 32, owner_uid=0, writable=host, deleted=False),
        script=r.Script(kind="script", path=f"/home/me/{comm}", sha256="cd" * 32) if host else None,
        origin=None if host else r.Origin(kind="dpkg", name=comm, version="1.0", verified=True),
        comm=comm,
        posture=("env LD_PRELOAD",) if host else (),
        gaps=("exe: permission denied",) if host else (),
    )


def pending(
    code: str,
    caller: r.Identity,
    *,
    client_name: str | None = None,
    method: str = "tools/call",
    tool: str = "get_current_time",
) -> r.Pending:
    """One refused client."""
    return r.Pending(
        code=code,
        caller=caller,
        server="time",
        wants=(r.Want(method=method, name=tool, count=2),),
        cause="no_grant",
        first_seen=NOW,
        last_seen=NOW,
        expires=NOW,
        count=2,
        client_name=client_name,
        chain=(link(30, caller.title, "host"), link(20, "zsh", "pass"), link(10, "ghostty", "edge")),
        accountable=0,
    )


def session(number: int, ancestors: tuple[r.Ancestor, ...]) -> r.Session:
    """One open session."""
    return r.Session(
        session=f"s-{number}",
        server="time",
        caller=identity("client.py"),
        pid=30 + number,
        since=NOW,
        calls=4,
        denials=1,
        ancestors=ancestors,
        client_name="claude-code 2.1.328",
    )


def record(seq: int, kind: str, name: str, *, verdict: str, cause: str = "") -> r.Record:
    """One audit record."""
    return r.Record(
        seq=seq,
        time=NOW,
        kind=kind,
        id=name,
        session="s-1",
        server="time",
        method="tools/call",
        name="get_current_time",
        caller="ef" * 32,
        verdict=verdict,
        cause=cause,
        pid=30,
        display="client.py · L1",
    )
