"""Descriptors of a relay."""

from __future__ import annotations

import os
import socket

import pytest

from attestd.appraisal.appraise import appraise
from attestd.daemon.relays import taken
from attestd.evidence.model import InputHolders
from attestd.mediation import Attested
from tests.fakes.kernel import FakeWatch
from tests.support.evidence import NAMING, REFERENCES, evidence_of, python_client, shell, shim, shipped_table, terminal


class Recorded(FakeWatch):
    """Remembers whether the relay was set aside."""

    aside = False

    def leave_connection(self) -> None:
        """Nothing is kept of it."""

    def set_aside(self) -> None:
        """Remember it."""
        self.aside = True


def attested(ino: int) -> Attested:
    """A shim below a client, whose standard input has this inode."""
    holders = InputHolders(kind="socket", pids=(), complete=True, ino=ino)
    evidence = evidence_of(shim(), python_client(pid=os.getpid()), shell(), terminal(), input=holders)
    result = appraise(evidence, shipped_table(), REFERENCES, NAMING)
    return Attested(evidence=evidence, result=result, watch=Recorded())


@pytest.mark.parametrize("examined", [True, False])
def test_only_the_examined_input_is_taken(examined: bool):
    """Then the client may write, and the relay is set aside; otherwise all stays as it was."""
    ours, theirs = socket.socketpair()
    relayed = attested(os.fstat(theirs.fileno()).st_ino if examined else 1)
    end = taken(relayed, (os.dup(theirs.fileno()), theirs.detach()))
    assert isinstance(relayed.watch, Recorded)
    assert (end is not None) is relayed.watch.aside is examined
    if end is not None:
        ours.send(b"hello")
        assert end.read() == (b"hello", relayed.evidence.peer.pid)
        end.close()
    ours.close()


def test_who_is_no_relay_is_declined():
    """Whatever it offers is closed."""
    ours, theirs = socket.socketpair()
    evidence = evidence_of(python_client(pid=os.getpid()), shell(), terminal())
    caller = Attested(
        evidence=evidence, result=appraise(evidence, shipped_table(), REFERENCES, NAMING), watch=FakeWatch()
    )
    assert taken(caller, (os.dup(theirs.fileno()), theirs.detach())) is None
    assert ours.recv(1) == b""
    ours.close()
