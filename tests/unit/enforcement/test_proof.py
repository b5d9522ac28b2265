from __future__ import annotations

import pytest

from attestd.enforcement.proof import Proof, ProofState


def direct(old: int) -> Proof:
    return Proof(relayed=False, old_bytes=old, challenge="secret")


def relayed() -> Proof:
    return Proof(relayed=True, old_bytes=10, challenge="secret")


def test_direct_bytes_queued_at_attestation_are_old():
    """A message that starts before the counted bytes end is not proven, one that starts after them is."""
    proof = direct(100)
    assert not proof.holds(0)
    assert not proof.holds(99)
    assert proof.holds(100)


def test_direct_needs_no_challenge():
    """On a direct socket nothing is ever asked of the client."""
    proof = direct(0)
    assert proof.challenge() is None
    assert proof.echo() is None
    assert not proof.pending


def test_relay_holds_nothing_before_the_answer():
    """Position proves nothing through a relay."""
    proof = relayed()
    assert not proof.holds(10_000_000)
    assert proof.challenge() == "secret"
    assert not proof.holds(10_000_000)


def test_the_challenge_is_sent_once():
    """A second request for the challenge gets none."""
    proof = relayed()
    assert proof.challenge() == "secret"
    assert proof.challenge() is None


def test_an_answer_before_the_challenge_proves_nothing():
    """Nobody can answer what was not asked, even with the right word."""
    proof = relayed()
    assert not proof.answered("secret", 50)
    assert proof.state is ProofState.OPEN


def test_bytes_before_the_answer_stay_unproven():
    """The answer proves what follows it, not what came before."""
    proof = relayed()
    proof.challenge()
    assert not proof.answered("guess", 40)
    assert proof.answered("secret", 50)
    assert not proof.holds(49)
    assert proof.holds(50)


def test_an_echo_proves_its_own_request():
    """A modern retry that carries the challenge is itself proven."""
    proof = relayed()
    assert proof.echo() == "secret"
    assert proof.echo() == "secret"
    assert not proof.echoed(None, 60)
    assert proof.echoed("secret", 60)
    assert proof.holds(60)
    assert not proof.holds(59)


def test_a_proof_is_given_once():
    """A replayed answer changes nothing."""
    proof = relayed()
    proof.challenge()
    assert proof.answered("secret", 50)
    assert not proof.answered("secret", 10)
    assert not proof.holds(20)


@pytest.mark.parametrize("relayed", [False, True])
def test_proven_by_the_recorder(relayed: bool):
    """What the recorder proved needs no challenge, and what was queued before counts too."""
    proof = Proof(relayed=relayed, old_bytes=500, challenge="secret", proven=True)
    assert proof.holds(0)
    assert not proof.pending
    assert (proof.challenge(), proof.echo()) == (None, None)


def test_the_cursor_of_a_list_is_a_challenge_too():
    """It brings the server's own along and gives it back; the echo is the proof from its own start."""
    proof = relayed()
    assert proof.more(None) == "secret"
    assert proof.more("a.b") == "secret.a.b"
    assert proof.turned("a.b", 40) == (False, "")
    assert proof.turned(None, 40) == (False, "")
    assert not proof.holds(50)
    assert proof.turned("secret.a.b", 40) == (True, "a.b")
    assert proof.holds(40)
    assert not proof.holds(39)
    assert proof.more(None) is None
    assert proof.turned("secret", 90) == (True, "")
    assert proof.holds(40)
    assert direct(0).more("a") is None
