"""Whether bytes are older than the attestation (docs/adr/0007).

An attacker can write a request and then execute a granted program: the kernel then names the granted program for
bytes that it never wrote. With the kernel recorder it can be proven from the start that nothing is older
(``attestd.evidence.model.Evidence.proven_upto``). Two proofs do without it:

- On a direct socket nothing is read before the attestation ended, and what was queued at that moment is counted. Bytes
  beyond that count were written by the attested image, because the image is checked again with every message.
- Through a relay the count proves nothing: older bytes may wait in the relay's standard input. There a request is
  proven when it follows the answer to a challenge that was sent after the attestation, or when it echoes such a
  challenge. In 2026-07-28 two things of a server come back word for word: the ``requestState`` of the three methods
  that may answer ``input_required``, and the cursor of a list. Who asks for the next page of a list is proven before
  its first call, of whatever method.

What is not proven is never served, only refused with the advice to send it again. Pure; the challenge comes from
outside.
"""

from __future__ import annotations

from enum import StrEnum

from attestd.wire.model import Json


class ProofState(StrEnum):
    """Where a session stands."""

    POSITION = "position"
    """Direct socket: the position in the stream decides."""
    OPEN = "open"
    """Relay: no challenge sent yet."""
    CHALLENGED = "challenged"
    PROVEN = "proven"


_BY_PLACE = (ProofState.POSITION, ProofState.PROVEN)
"""The states in which the place of a message in the stream proves it, or does not."""


class Proof:
    """The proof of one session. Offsets count bytes of the client's stream from 0."""

    def __init__(self, *, relayed: bool, old_bytes: int, challenge: str, proven: bool = False) -> None:
        self._old = 0 if proven else old_bytes
        self.secret = challenge
        self.state = ProofState.OPEN if relayed else ProofState.POSITION
        if proven:
            self.state = ProofState.PROVEN

    @property
    def pending(self) -> bool:
        """Whether an answer of the client may still prove something."""
        return self.state in (ProofState.OPEN, ProofState.CHALLENGED)

    def holds(self, start: int) -> bool:
        """Whether a message that starts at offset ``start`` was written by the attested image."""
        if self.state in _BY_PLACE:
            return start >= self._old
        return False

    def challenge(self) -> str | None:
        """The challenge to send now, once; None if it was sent or none is needed."""
        if self.state is not ProofState.OPEN:
            return None
        self.state = ProofState.CHALLENGED
        return self.secret

    def echo(self) -> str | None:
        """The challenge for a modern retry; may be sent with every request until it is answered."""
        if self.state in (ProofState.OPEN, ProofState.CHALLENGED):
            self.state = ProofState.CHALLENGED
            return self.secret
        return None

    def more(self, cursor: Json) -> str | None:
        """The cursor of a list that brings the challenge along, before the server's own; None if none is needed."""
        secret = self.echo()
        return f"{secret}.{cursor}" if secret is not None and type(cursor) is str else secret

    def turned(self, cursor: Json, start: int) -> tuple[bool, str]:
        """Whether ``cursor`` is one of ``more``, and the server's own in it; then it is the proof, if one is due."""
        if type(cursor) is not str or cursor.partition(".")[0] != self.secret:
            return False, ""
        self.echoed(self.secret, start)
        return True, cursor.partition(".")[2]

    def answered(self, challenge: str | int | None, end: int) -> bool:
        """An answer that names ``challenge`` ended at offset ``end``. True if it is the proof."""
        if self.state is not ProofState.CHALLENGED or challenge != self.secret:
            return False
        self.state = ProofState.PROVEN
        self._old = end
        return True

    def echoed(self, challenge: str | None, start: int) -> bool:
        """A request that starts at ``start`` carries ``challenge``. True if that is the proof, for itself too."""
        if self.state is not ProofState.CHALLENGED or challenge != self.secret:
            return False
        self.state = ProofState.PROVEN
        self._old = start
        return True


class Marks:
    """Up to which offset the bytes of one HTTP connection may be older than the attestation; may only fall."""

    __slots__ = ("old",)

    def __init__(self, old: float) -> None:
        self.old = old

    def shown(self, start: int) -> None:
        """What stands at ``start`` was only told to the attested image: nothing from there on is older."""
        self.old = min(self.old, start)


class ManyProof(Proof):
    """The proof of a session that several connections of one process feed. Each connection has its own marks.

    A name that was told to the attested image alone (a session id, a challenge) proves whatever stands behind it in
    the stream, so no relay is asked by ping.
    """

    def __init__(self, challenge: str) -> None:
        super().__init__(relayed=False, old_bytes=0, challenge=challenge)
        self.marks = Marks(float("inf"))

    def holds(self, start: int) -> bool:
        """See ``Proof``; of the connection whose message is being mediated."""
        return start >= self.marks.old

    def echo(self) -> str | None:
        """See ``Proof``."""
        return self.secret

    def echoed(self, challenge: str | None, start: int) -> bool:
        """See ``Proof``."""
        if challenge != self.secret:
            return False
        self.marks.shown(start)
        return True
