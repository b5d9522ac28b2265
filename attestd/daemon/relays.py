"""A relay that steps aside (docs/adr/0017): whose descriptors are taken, and who may write there."""

from __future__ import annotations

import os

from attestd.enforcement.client_end import ClientEnd, take
from attestd.mediation import Attested


def taken(attested: Attested, fds: tuple[int, ...]) -> ClientEnd | None:
    """The client's own input and output, which its relay offers, if they can be used.

    Who is not known as a relay (a shim in an environment that changes what it imports) is declined, not left waiting
    for an answer: it relays, and is refused as the program that it is.
    """
    if not attested.relayed:
        for fd in fds:
            os.close(fd)
        return None
    evidence, accountable = attested.evidence, attested.result.accountable
    writers = frozenset(link.pid for link in evidence.chain[1 : accountable + 1])
    end = take(fds, evidence.input, evidence.peer.pid, writers)
    if end is not None:
        attested.watch.set_aside()
    return end
