"""Rows against the audit log."""

from __future__ import annotations

import hashlib

import msgspec

from attestd.grants.integrity import Row, body_digest, decode, encode, verify
from attestd.grants.model import Grant
from tests.support.results import NOW, make_grant


def row(grant: Grant, **changes: object) -> Row:
    """The row that the store writes for this grant."""
    body = encode(grant)
    plain = Row(
        id=grant.id,
        body=body,
        digest=hashlib.sha256(body).digest(),
        audit_seq=1,
        hits=0,
        last_used_ns=None,
        revoked_ns=None,
    )
    return msgspec.structs.replace(plain, **changes)


def test_recorded_rows_become_grants():
    """A row whose body the log knows is a grant, with its uses."""
    grant = make_grant()
    found = verify([row(grant, hits=3, last_used_ns=NOW)], {"g1": body_digest(grant)})
    assert found.grants == (make_grant(hits=3, last_used_ns=NOW),)
    assert (found.refused, found.missing) == ((), ())


def test_uses_do_not_change_the_digest():
    """What changes by use is not part of what was approved."""
    assert body_digest(make_grant()) == body_digest(make_grant(hits=9, last_used_ns=1, revoked_ns=2))


def test_inserted_row_is_refused():
    """A row without a record never becomes a grant."""
    found = verify([row(make_grant(id="evil"))], {})
    assert found.grants == ()
    assert found.refused[0].grant_id == "evil"
    assert "no approval" in found.refused[0].detail


def test_edited_row_is_refused():
    """Another body under a recorded id is refused, with and without its digest adjusted."""
    honest, evil = make_grant(), make_grant(tools=("*",))
    audited = {"g1": body_digest(honest)}
    adjusted = row(evil)
    lazy = row(evil, digest=row(honest).digest)
    for forged in (adjusted, lazy, row(honest, digest=b"\0" * 32)):
        found = verify([forged], audited)
        assert found.grants == ()
        assert "not what was approved" in found.refused[0].detail


def test_body_under_another_id_is_refused():
    """A recorded body cannot be moved under another recorded id."""
    honest = make_grant()
    found = verify([row(honest, id="g2")], {"g2": body_digest(honest)})
    assert [refused.detail for refused in found.refused] == ["the row carries another grant's body"]


def test_unrevoked_row_is_refused():
    """A revoked grant whose mark was taken away has no approval in force and is refused."""
    found = verify([row(make_grant())], {})
    assert found.grants == ()


def test_revoked_rows_are_left_out():
    """A revoked row is neither a grant nor a fault."""
    found = verify([row(make_grant(), revoked_ns=NOW)], {})
    assert (found.grants, found.refused, found.missing) == ((), (), ())


def test_missing_rows_are_reported():
    """A recorded grant without a live row is reported."""
    grant = make_grant()
    audited = {"g1": body_digest(grant), "gone": "aa" * 32}
    assert verify([row(grant)], audited).missing == ("gone",)
    assert verify([row(grant, revoked_ns=1)], audited).missing == ("g1", "gone")


def test_unreadable_body_is_refused():
    """A recorded body that this version cannot read is refused, not guessed."""
    body = b'{"id":"g1"}'
    broken = row(make_grant(), body=body, digest=hashlib.sha256(body).digest())
    found = verify([broken], {"g1": hashlib.sha256(body).hexdigest()})
    assert "cannot be read" in found.refused[0].detail


def test_round_trip_pinned():
    """The body is the grant as JSON with the fields in the order of the model: a format that rows on disk rely on."""
    assert decode(row(make_grant())) == make_grant()
    assert encode(make_grant()).startswith(b'{"id":"g1","subject":{"uid":1000,"program_kind":"exact","program":"abab')
    assert body_digest(make_grant()) == "a2779a320b95948edc800eb93c46514007ad03dd7179feb69691d4165b3bf1ca"
