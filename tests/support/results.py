"""Builders of callers and grants for tests: a plain program that may have a grant, changed where a test says so."""

from __future__ import annotations

from typing import Any

import msgspec

from attestd.appraisal.model import AttestationResult, CallerKind, LinkClass
from attestd.evidence.model import Evidence, FileFacts, Link, Namespaces, Peer
from attestd.grants.model import Grant, Lifetime, Object, Pending, Subject, Want

NOW = 1_800_000_000_000_000_000
"""A moment in January 2027, ns since the epoch."""
MINUTE = 60 * 1_000_000_000
PROGRAM = "ab" * 32
OTHER = "cd" * 32
CHAIN = "12" * 32
INSTANCE = "boot/4711/1"
SESSION = "boot/session/1"


def make_result(**changes: Any) -> AttestationResult:
    """A level 2 program that a shell in a terminal started, uid 1000."""
    facts: dict[str, Any] = {
        "kind": CallerKind.PROGRAM,
        "accountable": 0,
        "classes": (LinkClass.APP,),
        "uid": 1000,
        "program": PROGRAM,
        "chain": CHAIN,
        "instance": INSTANCE,
        "spiffe_id": "spiffe://example/host/h/uid/1000/program/ab/chain/12",
        "level": 2,
        "recorded": False,
        "reasons": (),
        "inline": False,
        "launchers": (),
        "login_session": SESSION,
        "tty": "pts/3",
        "package": "",
        "lineage": "",
        "title": "client.py",
        "display": "client.py · sha256 abababab · L2 | via zsh | in ghostty | tty pts/3",
        "durable": True,
    }
    return AttestationResult(**{**facts, **changes})


def make_grant(**changes: Any) -> Grant:
    """A standing grant of that program on the server ``time`` for the tool ``get``.

    Fields of subject, object and lifetime are given by their own names; the lifetime's kind is ``lifetime``.
    """
    facts: dict[str, Any] = {
        "id": "g1",
        "min_level": 1,
        "created_ns": NOW - MINUTE,
        "approved_by": "root",
        "how": "root",
        "origin": "test",
        "display": "client.py",
    }
    subject: dict[str, Any] = {"uid": 1000, "program_kind": "exact", "program": PROGRAM}
    target: dict[str, Any] = {"server": "time", "tools": ("get",)}
    life: dict[str, Any] = {"kind": changes.pop("lifetime", "standing")}
    for name, value in changes.items():
        for fields, struct in ((subject, Subject), (target, Object), (life, Lifetime), (facts, Grant)):
            if name in struct.__struct_fields__:
                fields[name] = value
                break
        else:
            raise TypeError(f"no field of a grant is called {name}")
    return Grant(subject=Subject(**subject), object=Object(**target), lifetime=Lifetime(**life), **facts)


def make_file(**changes: Any) -> FileFacts:
    """A root-owned executable that the caller cannot write."""
    facts: dict[str, Any] = {
        "path": "/usr/bin/client",
        "sha256": "ef" * 32,
        "dev": 1,
        "ino": 2,
        "size": 3,
        "mode": 0o100755,
        "owner_uid": 0,
        "owner_gid": 0,
        "ctime_ns": 0,
        "fs": "ext4",
        "writable": False,
    }
    return FileFacts(**{**facts, **changes})


def make_link(**changes: Any) -> Link:
    """One process with that image."""
    facts: dict[str, Any] = {
        "pid": 4711,
        "start_ticks": 1,
        "pidfs_ino": 4711,
        "ppid": 1,
        "uids": (1000, 1000, 1000, 1000),
        "gids": (1000, 1000, 1000, 1000),
        "comm": "client",
        "argv": ("client",),
        "exe": make_file(),
        "origin": None,
        "script": None,
        "namespaces": Namespaces(user=1, pid=1, mnt=1, ours_user=True, ours_pid=True, ours_mnt=True),
        "tracer_pid": 0,
        "tty": "pts/3",
        "session": 1,
        "cgroup": "/",
    }
    return Link(**{**facts, **changes})


def make_evidence(*links: Link, **changes: Any) -> Evidence:
    """Evidence with this chain (one plain link if none is given)."""
    facts: dict[str, Any] = {
        "peer": Peer(pid=4711, uid=1000, gid=1000, groups=(), security_label=None, source="peerpidfd"),
        "chain": links or (make_link(),),
        "end": "init",
        "boot_id": "boot",
        "recorder": "absent",
        "recorder_reason": "",
        "exe_forgeable": False,
        "collected_ns": NOW,
    }
    return Evidence(**{**facts, **changes})


def make_pending(result: AttestationResult | None = None, *wants: tuple[str, str], **changes: Any) -> Pending:
    """A waiting request of this caller on ``time``; wants are (method, name) pairs."""
    caller = make_result() if result is None else result
    facts: dict[str, Any] = {
        "code": "7F3K-9QRT",
        "uid": caller.uid,
        "program": caller.program,
        "chain": caller.chain,
        "server": "time",
        "cause": "no_grant",
        "wants": tuple(Want(method=method, name=name, count=1) for method, name in wants),
        "first_ns": NOW,
        "last_ns": NOW,
        "count": 1,
        "expires_ns": NOW + 15 * MINUTE,
        "identity": msgspec.json.encode(caller),
        "display": caller.display,
        "runs": "image",
    }
    return Pending(**{**facts, **changes})
