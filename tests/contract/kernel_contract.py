"""What every kernel room promises, whichever platform it asks: one suite, run on each ``World`` by test_kernels.py."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.protocol import Collected
from tests.contract.kernels import World

SOON_MS = 20_000
GONE = (Cause.PEER_GONE, Cause.CHAIN_CHANGED)


@contextlib.contextmanager
def collected(world: World, pid: int) -> Iterator[Collected]:
    """The evidence of a connected process; its watch is closed afterwards."""
    fd = world.connection(pid).fileno()
    found = world.kernel.collect(fd, world.kernel.peer(fd))
    try:
        yield found
    finally:
        found.watch.close()


def told(found: Collected) -> bool:
    """Whether one of the watch's descriptors becomes readable soon."""
    poll = select.poll()
    for fd in found.watch.exit_fds():
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(SOON_MS))


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class KernelContract:
    """Tests with a ``world`` fixture."""

    def test_the_peer_is_who_connected(self, world: World):
        """The kernel's word names the process at the other end, by a source that appraisal accepts."""
        pid = world.child()
        peer = world.kernel.peer(world.connection(pid).fileno())
        assert peer.pid == pid
        assert peer.source in ("peerpidfd", "proved", "token")

    def test_the_chain_leads_from_the_peer_to_its_ancestors(self, world: World):
        """Each link is the parent of the one before, all are alive and each has a number of its own."""
        parent = world.child()
        with collected(world, world.fork(parent)) as found:
            chain = found.evidence.chain
            assert [link.pid for link in chain[1:3]] == [parent, os.getpid()]
            assert all(child.ppid == mother.pid for child, mother in itertools.pairwise(chain))
            assert len({link.pidfs_ino or (link.pid, link.start_ticks) for link in chain}) == len(chain)
            assert chain[0].reparented is False
            assert not any(link.dead for link in chain)

    def test_a_program_has_the_digest_of_its_file(self, world: World):
        """The executable of the peer is read whole, and a second process of it has the same digest."""
        pid = world.child()
        with collected(world, pid) as one, collected(world, world.fork(pid)) as two:
            first, second = one.evidence.chain[0].exe, two.evidence.chain[0].exe
            assert first is not None
            assert second is not None
            assert first.sha256 == second.sha256 is not None

    def test_two_looks_are_equal(self, world: World):
        """Evidence of an unchanged process differs in its time only."""
        pid = world.child()
        with collected(world, pid) as one, collected(world, pid) as two:
            assert msgspec.structs.replace(one.evidence, collected_ns=0) == msgspec.structs.replace(
                two.evidence, collected_ns=0
            )

    def test_an_unchanged_peer_verifies(self, world: World):
        """The watch has nothing to say about the attested process, and refuses the word of any other."""
        pid = world.child()
        with collected(world, pid) as found:
            assert found.watch.verify(pid) is None
            assert found.watch.verify(0) is None
            assert found.watch.verify(os.getpid()) is Cause.WRITER_MISMATCH

    def test_an_exec_is_seen(self, world: World):
        """Another program in the same process is no longer the attested one."""
        pid = world.child()
        with collected(world, pid) as found:
            world.execute(pid)
            assert found.watch.verify(pid) is Cause.IMAGE_CHANGED

    def test_an_exit_is_seen_and_told(self, world: World):
        """After its end the peer is gone, and the descriptors of the watch say so without being asked."""
        pid = world.child()
        with collected(world, pid) as found:
            world.exit(pid)
            assert told(found)
            assert found.watch.verify(0) is Cause.PEER_GONE

    def test_the_accountable_client_is_watched_too(self, world: World):
        """Once pinned, an exec of the accountable parent ends the attestation of its child."""
        parent = world.child()
        with collected(world, world.fork(parent)) as found:
            found.watch.pin_accountable(1)
            assert found.watch.verify(0) is None
            world.execute(parent)
            assert found.watch.verify(0) is Cause.IMAGE_CHANGED

    def test_the_end_of_the_accountable_client_is_told(self, world: World):
        """Once pinned, the exit of the accountable parent makes the watch readable and its child unattested."""
        parent = world.child()
        with collected(world, world.fork(parent)) as found:
            found.watch.pin_accountable(1)
            world.exit(parent)
            assert told(found)
            assert found.watch.verify(0) in GONE

    def test_what_stands_above_the_accountable_client_may_go(self, world: World):
        """An ancestor beyond the pinned one changes nothing."""
        grandparent = world.child()
        parent = world.fork(grandparent)
        with collected(world, world.fork(parent)) as found:
            found.watch.pin_accountable(1)
            world.exit(grandparent)
            assert found.watch.verify(0) is None

    def test_an_orphan_has_no_certain_parent(self, world: World):
        """A process whose parent has exited is not shown as anybody's child for certain."""
        parent = world.child()
        pid = world.fork(parent)
        world.exit(parent)
        with collected(world, pid) as found:
            assert parent not in [link.pid for link in found.evidence.chain]
            assert found.evidence.chain[0].reparented is not False or found.evidence.end == "broken"

    def test_a_peer_that_has_gone_is_refused(self, world: World):
        """A connection whose process has exited has no evidence."""
        pid = world.child()
        fd = world.connection(pid).fileno()
        peer = world.kernel.peer(fd)
        world.exit(pid)
        with pytest.raises(EvidenceError) as refused:
            world.kernel.collect(fd, peer)
        assert refused.value.cause is Cause.PEER_GONE

    def test_a_pid_that_nobody_has_is_refused(self, world: World):
        """Inspection of no process is an error, not empty evidence."""
        pid = world.child()
        world.exit(pid)
        with pytest.raises(EvidenceError) as refused:
            world.kernel.collect_pid(pid)
        assert refused.value.cause is Cause.PEER_GONE

    def test_inspection_says_that_no_socket_vouched(self, world: World):
        """Evidence by number has the source ``pid``."""
        pid = world.child()
        found = world.kernel.collect_pid(pid)
        try:
            assert (found.evidence.peer.pid, found.evidence.peer.source) == (pid, "pid")
            assert found.watch.verify(0) is None
        finally:
            found.watch.close()

    def test_a_closed_watch_verifies_nothing(self, world: World):
        """After ``close``, which may be called twice, there is no descriptor left and no consent."""
        pid = world.child()
        with collected(world, pid) as found:
            found.watch.close()
            found.watch.close()
            assert found.watch.verify(pid) is Cause.PEER_GONE
            assert found.watch.exit_fds() == ()

    def test_only_a_link_that_is_held_can_be_pinned(self, world: World):
        """A link beyond the chain is an IndexError."""
        with collected(world, world.child()) as found, pytest.raises(IndexError):
            found.watch.pin_accountable(len(found.evidence.chain))

    @pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
    def test_nothing_stays_open(self, world: World):
        """Collecting and closing leaves as many descriptors as there were."""
        pid = world.child()
        with collected(world, pid):
            pass
        before = _open_descriptors()
        with collected(world, pid) as found:
            found.watch.pin_accountable(1)
        assert _open_descriptors() <= before + (world.name == "darwin")  # the fake's writing end

    def test_features_have_names_of_their_own(self, world: World):
        """What was probed is listed once each, with words."""
        features = world.kernel.features()
        assert len({feature.name for feature in features}) == len(features) > 0
        assert all(feature.detail and (feature.present or feature.remedy) for feature in features)
