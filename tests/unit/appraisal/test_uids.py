"""Decided on the weaker uid, with both reported."""

from __future__ import annotations

import msgspec
import pytest

from attestd.appraisal.appraise import appraise
from attestd.appraisal.uids import weaker_uid
from attestd.evidence.model import Link
from tests.support.evidence import (
    NAMING,
    REFERENCES,
    claude,
    evidence_of,
    init,
    link_of,
    shell,
    shipped_table,
    terminal,
)

TABLE = shipped_table()


@pytest.mark.parametrize(
    ("uids", "expected"),
    [((0, 0, 0, 0), 0), ((1000, 0, 0, 0), 1000), ((0, 1000, 1000, 1000), 1000), ((5, 6, 7, 8), 5), ((0, 0, 9, 0), 9)],
)
def test_weaker(uids: tuple[int, int, int, int], expected: int):
    """The real uid, unless it is root's and another is not."""
    assert weaker_uid(link_of("/x", uids=uids)) == expected


def decided(*links: Link, peer_uid: int | None = None) -> tuple[int, set[str]]:
    """Uid and the codes about uids."""
    evidence = evidence_of(*links, terminal(), init())
    if peer_uid is not None:
        evidence = msgspec.structs.replace(evidence, peer=msgspec.structs.replace(evidence.peer, uid=peer_uid))
    result = appraise(evidence, TABLE, REFERENCES, NAMING)
    return result.uid, {reason.code for reason in result.reasons if reason.code.startswith("uid-")}


def test_one_user():
    """Nothing to say where all uids are one."""
    assert decided(claude(), shell()) == (1000, set())


def test_root_alone():
    """Root's own processes are root's."""
    assert decided(claude(uid=0), shell(uid=0)) == (0, set())


def test_uid_changed_after_connect():
    """Connected as root, now a user: the user decides; and the other way round too."""
    assert decided(claude(), shell(), peer_uid=0) == (1000, {"uid-crossed"})
    assert decided(claude(uid=0), shell(uid=0), peer_uid=1000) == (1000, {"uid-crossed"})


def test_started_by_a_user():
    """A client of root that a user started through sudo is the user's."""
    assert decided(claude(uid=0), link_of("/usr/bin/sudo", "dpkg:sudo", uid=0), shell()) == (1000, {"uid-crossed"})


def test_su_to_another_user():
    """A client that runs as another user is that user's, capped; on the path itself nobody is the weaker."""
    assert decided(claude(uid=1001), link_of("/usr/bin/su", "dpkg:util-linux", uids=(1000, 0, 0, 0)), shell()) == (
        1001,
        {"uid-crossed"},
    )
    assert decided(claude(), shell(), peer_uid=1001) == (1000, {"uid-crossed", "uid-ambiguous"})
