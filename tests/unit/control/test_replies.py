"""The JSON that scripts rely on: keys may be added, never changed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from attestd.appraisal.model import AttestationResult, CallerKind, Launcher, LinkClass, Reason
from attestd.control import replies as r
from tests.support.control_samples import NOW, identity, link, pending

GRANT = r.Grant(
    id="g-1",
    subject=r.Subject(uid=0, program_kind="exact", program="ab" * 32),
    object=r.Object(server="time", tools=("a",)),
    min_level=1,
    lifetime="until",
    expires=NOW,
    hits=0,
    last_used=None,
    approved_by="root",
    origin="7F3K-9QRT",
)
INSPECTION = r.Inspection(
    peer=r.Peer(pid=1, uid=0, gid=0), chain=(link(3, "a", "host"),), accountable=0, identity=identity("a")
)
STATUS = r.Status(
    mode="user",
    version="0",
    pid=1,
    uptime_s=1,
    recorder=r.RecorderState(state="absent", reason="none"),
    servers=(r.ServerState(name="time", transport="stdio", state="running"),),
    sessions=0,
    policy=r.PolicyState(generation=1, mode="enforce"),
    audit=r.AuditState(records=0, head=""),
)
VERIFICATION = r.Verification(ok=True, records=1, segments=1, head="", problems=())


def plain(reply: r.Reply) -> dict[str, Any]:
    """The reply as a script reads it."""
    return json.loads(msgspec.json.encode(reply))


@pytest.mark.parametrize(
    ("reply", "path", "keys"),
    [
        (STATUS, (), "mode version pid uptime_s recorder servers sessions policy audit"),
        (STATUS, ("recorder",), "state reason"),
        (STATUS, ("servers", 0), "name transport state"),
        (STATUS, ("policy",), "generation mode"),
        (STATUS, ("audit",), "records head"),
        (INSPECTION, (), "peer chain accountable identity"),
        (INSPECTION, ("peer",), "pid uid gid"),
        (INSPECTION, ("chain", 0), "pid start uid class exe script origin"),
        (INSPECTION, ("chain", 0, "exe"), "path sha256 owner_uid writable deleted"),
        (INSPECTION, ("chain", 0, "script"), "kind path sha256"),
        (INSPECTION, ("identity",), "spiffe_id program chain instance level recorded reasons display"),
        (pending("c", identity("a")), (), "code caller server wants cause first_seen last_seen"),
        (pending("c", identity("a")), ("wants", 0), "method name count"),
        (
            GRANT,
            (),
            "id subject object min_level lifetime expires hits last_used approved_by origin",
        ),
        (VERIFICATION, (), "ok records segments head problems"),
    ],
)
def test_the_documented_keys_are_there(reply: r.Reply, path: tuple[str | int, ...], keys: str) -> None:
    """Every key that was promised is in the JSON, at its place."""
    value: Any = plain(reply)
    for step in path:
        value = value[step]
    assert set(keys.split()) <= set(value)


def test_times_are_rfc_3339_in_utc() -> None:
    """A time is text that any tool reads."""
    assert plain(GRANT)["expires"] == "2026-07-30T14:03:05Z"


def test_an_attestation_result_converts_into_an_identity() -> None:
    """The field names are those of appraisal, so nothing is lost or renamed on the way."""
    result = AttestationResult(
        kind=CallerKind.PROGRAM,
        accountable=0,
        classes=(LinkClass.APP,),
        uid=1,
        program="ab" * 32,
        chain="cd" * 32,
        instance="i",
        spiffe_id="spiffe://x/y",
        level=1,
        recorded=False,
        reasons=(Reason(cap=1, code="c", detail="d"),),
        inline=True,
        launchers=(Launcher(program=None, display="evil", build_step=True),),
        login_session="s",
        tty=None,
        package="npm:a@1",
        lineage="l",
        title="t",
        display="t · L1",
    )
    made = msgspec.convert(msgspec.to_builtins(result), r.Identity)
    assert (made.kind, made.level, made.inline, made.title) == ("program", 1, True, "t")
    assert made.reasons == (r.Reason(cap=1, code="c", detail="d"),)
    assert made.launchers == (r.Launcher(program=None, display="evil", build_step=True),)


@pytest.mark.parametrize(
    "change",
    [
        {"subject": r.Subject(uid=1, program_kind="exact", program="ab" * 32)},
        {"object": r.Object(server="time", tools=("*",))},
        {"min_level": 2},
        {"lifetime": "standing"},
        {"key": "other"},
    ],
)
def test_the_terms_of_a_grant_change_with_what_it_allows(change: dict[str, Any]) -> None:
    """Two proposals that differ in anything that counts have different digests."""
    assert msgspec.structs.replace(GRANT, **change).terms != GRANT.terms


def test_the_terms_of_a_grant_do_not_change_with_the_clock() -> None:
    """Id, use and the moving end of a limited time are not part of what was agreed to."""
    later = msgspec.structs.replace(GRANT, id="g-2", hits=3, expires=None, approved_by="x")
    assert later.terms == GRANT.terms
    assert msgspec.json.decode(msgspec.json.encode(GRANT), type=r.Grant).terms == GRANT.terms
