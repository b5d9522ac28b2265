"""What a macOS signature does to the level; the vectors ``mac-*`` pin whole results."""

from __future__ import annotations

import msgspec
import pytest

from attestd.appraisal.signatures import objections, vouches, weaknesses
from attestd.evidence.model import Link
from tests.support.evidence import SIGNED, evil, mac_program

PATH = "/Applications/Agent.app/Contents/MacOS/Agent"


def agent(status: int = SIGNED, signer: str = "Developer ID") -> Link:
    """A signed program."""
    return mac_program(PATH, "ABCDE12345/com.example.agent", signer=signer, status=status)


def test_a_whole_signature():
    """A verified signer with everything enforced vouches without a weakness or an objection."""
    assert vouches(agent())
    assert weaknesses(agent()) == ()
    assert objections(agent()) == ()


@pytest.mark.parametrize(
    ("status", "code"),
    [(SIGNED | 0x10000000, "debugged"), (SIGNED & ~1, "signature-invalid"), (SIGNED | 4, "debuggable")],
)
def test_objections(status: int, code: str):
    """Each flag has its reason, whoever signed."""
    assert objections(agent(status)) == (code,)
    assert objections(agent(status, signer="")) == (code,)


@pytest.mark.parametrize("status", [SIGNED | 0x10000000, SIGNED & ~1])
def test_nothing_vouches_for_what_changed(status: int):
    """Not even a verified origin, should the flags have changed since."""
    assert not vouches(agent(status))


def test_who_does_not_vouch():
    """An unverified signer, another kind of origin, no signature at all."""
    assert not vouches(agent(signer=""))
    assert not vouches(evil())
    packaged = msgspec.structs.replace(agent().origin, kind="npm")  # type: ignore[type-var]
    assert not vouches(msgspec.structs.replace(agent(), origin=packaged))


@pytest.mark.parametrize(
    ("missing", "text"),
    [(0x300, "pages not enforced"), (0x10000, "no hardened runtime"), (0x2000, "no library validation")],
)
def test_weaknesses(missing: int, text: str):
    """What is missing is named; one of HARD and KILL is enough, and so is forced library validation."""
    assert weaknesses(agent(SIGNED & ~missing)) == (text,)
    assert weaknesses(agent(SIGNED & ~0x2000 | 0x10)) == ()
    assert weaknesses(agent(SIGNED & ~0x100)) == ()
