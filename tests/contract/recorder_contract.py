"""What every recorder promises, whoever implements it: one suite, run on each ``World`` by test_recorders.py.

Keys that a test holds are cut to the tick, as /proc shows them; keys in records may be finer, and find the same record.
"""

from __future__ import annotations

import time

from attestd.evidence.recorder import ProcessKey, ProcessRecord
from tests.contract.worlds import World

TICK_NS = 10_000_000


def recorded(world: World, key: ProcessKey) -> ProcessRecord:
    """The record of a key, which must exist."""
    found = world.recorder.process(key)
    assert found is not None, f"{key} is not recorded by {world.name}"
    return found


def recorded_end(world: World, key: ProcessKey) -> int:
    """When a process ended; recorders may learn of it a moment after those who waited for it."""
    deadline = time.monotonic() + 5
    while (ended := recorded(world, key).exited_ns) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert ended is not None
    return ended


def pids(records: tuple[ProcessRecord, ...]) -> list[int]:
    return [record.key.pid for record in records]


class RecorderContract:
    """Tests with a ``world`` fixture."""

    def test_the_state_names_what_answers(self, world: World):
        """A recorder that works is on or a fallback, and says more in words."""
        state, reason = world.recorder.state()
        assert state == ("on" if world.words else "fallback")
        assert reason

    def test_a_fork_is_recorded_with_its_parent(self, world: World):
        """A child has a record that names its parent, and both are alive."""
        parent = world.enter()
        child = world.fork(parent)
        record = recorded(world, child)
        assert record.parent == recorded(world, parent).key
        assert (record.exited_ns, record.gap, record.pre_attach) == (None, False, False)
        assert record.forked_ns > 0
        assert record.forked_ns - child.start_ns < 60_000_000_000

    def test_a_records_own_key_finds_it_again(self, world: World):
        """Keys in records, parents' keys too, lead to the same records."""
        parent = world.enter()
        record = recorded(world, world.fork(parent))
        assert recorded(world, record.key) == record
        assert record.parent is not None
        assert recorded(world, record.parent).key.pid == parent.pid

    def test_each_execution_counts_one(self, world: World):
        """The counter rises by one with every program, and only then."""
        key = world.enter()
        before = recorded(world, key).exec_counter
        world.thread(key)
        assert recorded(world, key).exec_counter == before
        for count in (1, 2, 3):
            world.execute(key)
            assert recorded(world, key).exec_counter == before + count
        assert recorded(world, key).counter_exact
        assert recorded(world, key).exec_ns >= recorded(world, key).forked_ns

    def test_an_execution_is_its_process_own(self, world: World):
        """Neither the parent's counter nor a sibling's changes."""
        parent = world.enter()
        one, other = world.fork(parent), world.fork(parent)
        before = [recorded(world, key).exec_counter for key in (parent, other)]
        world.execute(one)
        assert [recorded(world, key).exec_counter for key in (parent, other)] == before

    def test_an_exit_is_recorded(self, world: World):
        """An ended process keeps its record, with the time of its end."""
        parent = world.enter()
        child = world.fork(parent)
        own = recorded(world, child)
        world.exit(child)
        assert recorded_end(world, own.key) >= own.forked_ns
        assert recorded(world, parent).exited_ns is None

    def test_a_thread_that_ends_is_not_an_exit(self, world: World):
        """A process lives as long as one of its threads."""
        key = world.enter()
        world.thread(key)
        assert recorded(world, key).exited_ns is None

    def test_lineage_goes_through_the_dead(self, world: World):
        """Parents that have ended are there, in order, marked by the time of their end."""
        first = world.enter()
        second = world.fork(first)
        third = world.fork(second)
        last = world.fork(third)
        own = [recorded(world, key).key for key in (third, second)]
        world.exit(third)
        world.exit(second)
        for key in own:
            recorded_end(world, key)
        chain = world.recorder.lineage(last)
        assert pids(chain)[:4] == [last.pid, third.pid, second.pid, first.pid]
        assert [record.exited_ns is not None for record in chain[:4]] == [False, True, True, False]
        assert chain[-1].pre_attach or chain[-1].key.pid == 1

    def test_lineage_is_cut_at_its_limit(self, world: World):
        """No more records than asked for."""
        key = world.fork(world.fork(world.enter()))
        assert len(world.recorder.lineage(key, 2)) == 2

    def test_lineage_of_the_dead_is_known(self, world: World):
        """A process that has ended before anybody asked still has its lineage."""
        parent = world.enter()
        child = world.fork(parent)
        own = recorded(world, child).key
        world.exit(child)
        world.exit(parent)
        assert pids(world.recorder.lineage(own))[:2] == [child.pid, parent.pid]

    def test_unknown_keys_have_no_record(self, world: World):
        """A pid that nobody has, and a start time that is not that process's, give nothing."""
        key = world.enter()
        wrong = ProcessKey(key.pid, key.start_ns - 1000 * TICK_NS)
        nobody = ProcessKey(2**22 + 5, key.start_ns)
        for unknown in (wrong, nobody):
            assert world.recorder.process(unknown) is None
            assert world.recorder.lineage(unknown) == ()
            assert world.recorder.exec_event(unknown, 1) is None
        assert world.recorder.connection(2**62) is None

    def test_nothing_is_lost_in_peace(self, world: World):
        """A few processes cost no event."""
        before = world.recorder.losses()
        world.fork(world.enter())
        assert world.recorder.losses() == before

    def test_words_and_connections_are_known_or_not_at_all(self, world: World):
        """A recorder that is on knows argv and the connector; a fallback says that it does not know."""
        key = world.enter()
        world.execute(key)
        cookie = world.connect(key)
        record = recorded(world, key)
        event = world.recorder.exec_event(key, record.exec_counter)
        connection = world.recorder.connection(cookie)
        if not world.words:
            assert (event, connection) == (None, None)
            assert record.image is None or record.image_claimed
            return
        assert event is not None
        assert connection is not None
        assert event.argv[1:3] == (b"-I", b"-S")
        assert record.image is not None
        assert not record.image_claimed
        assert (connection.key, connection.exec_counter) == (record.key, record.exec_counter)

    def test_a_connection_keeps_the_counter_of_its_moment(self, world: World):
        """What is executed after connect does not change who connected."""
        if not world.words:
            return
        key = world.enter()
        cookie = world.connect(key)
        before = recorded(world, key).exec_counter
        world.execute(key)
        connection = world.recorder.connection(cookie)
        assert connection is not None
        assert connection.exec_counter == before
        assert recorded(world, key).exec_counter == before + 1


class ReuseContract:
    """What holds when a pid is used again; making that happen needs root."""

    def test_a_pid_that_is_used_again_is_another_process(self, world: World):
        """Two processes of one pid have two records, each with its own parent and counter."""
        first, second = world.enter(), world.enter()
        for _ in range(5):
            old = world.fork(first)
            own = recorded(world, old).key
            world.execute(old)
            world.exit(old)
            try:
                new = world.reuse(old, second)
                break
            except TimeoutError:  # somebody else on this machine has the pid now: another one will do
                continue
        assert new.pid == old.pid
        record, before = recorded(world, new), recorded(world, own)
        assert record.key != before.key
        assert record.exited_ns is None
        assert before.exited_ns is not None
        assert record.parent == recorded(world, second).key
        assert before.parent == recorded(world, first).key
        assert pids(world.recorder.lineage(own))[:2] == [old.pid, first.pid]
        assert pids(world.recorder.lineage(new))[:2] == [new.pid, second.pid]


class LossContract:
    """What holds when events are lost."""

    def test_a_process_born_in_a_loss_has_unknown_lineage(self, world: World):
        """It has a record without a parent, and its lineage ends with it."""
        parent = world.enter()
        born = world.lose(parent)
        record = recorded(world, born)
        assert record.gap
        assert record.parent is None
        assert pids(world.recorder.lineage(born)) == [born.pid]

    def test_a_loss_is_counted(self, world: World):
        """Events and epochs of loss rise, and only then."""
        parent = world.enter()
        before = world.recorder.losses()
        world.lose(parent)
        after = world.recorder.losses()
        assert after.dirty_epochs > before.dirty_epochs
        total = after.exec_events + after.fork_events + after.unknown_events
        assert total > before.exec_events + before.fork_events + before.unknown_events

    def test_lineage_goes_on_after_a_loss(self, world: World):
        """A child born afterwards is recorded; its lineage ends at the process born in the loss, or goes on past it."""
        parent = world.enter()
        born = world.lose(parent)
        recorded(world, born)
        later, sibling = world.fork(born), world.fork(parent)
        assert pids(world.recorder.lineage(later)) == [later.pid, born.pid]
        assert pids(world.recorder.lineage(sibling))[:2] == [sibling.pid, parent.pid]

    def test_a_counter_that_lived_through_a_loss_is_not_exact(self, world: World):
        """An equal counter proves nothing for a process that lived meanwhile, and everything for one born later."""
        parent = world.enter()
        world.lose(parent)
        assert not recorded(world, parent).counter_exact
        assert recorded(world, world.fork(parent)).counter_exact
