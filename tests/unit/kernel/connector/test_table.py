from __future__ import annotations

import pytest

from attestd.evidence.recorder import ProcessKey, ProcessRecord
from attestd.kernel.linux.connector.glance import TICK_NS, Glance
from attestd.kernel.linux.connector.table import LATE_NS, Entry, Table

ATTACH = 1_000 * TICK_NS


class Proc:
    """What /proc shows: filled by the test. Asked is the list of pids that were looked at."""

    def __init__(self) -> None:
        self.processes: dict[int, Glance] = {}
        self.asked: list[int] = []

    def look(self, pid: int) -> Glance | None:
        self.asked.append(pid)
        return self.processes.get(pid)

    def show(self, pid: int, start_ns: int, *, alive: bool = True, comm: str = "prog", uid: int = 7) -> Glance:
        seen = Glance(pid, start_ns - start_ns % TICK_NS, comm, uid, alive)
        self.processes[pid] = seen
        return seen


@pytest.fixture(name="proc")
def _proc() -> Proc:
    return Proc()


@pytest.fixture(name="table")
def _table(proc: Proc) -> Table:
    """A table that knows init, pid 1."""
    table = Table(proc.look, ATTACH, limit=50)
    table.observe(proc.show(1, TICK_NS, comm="init", uid=0))
    return table


def at(step: int) -> int:
    """A time after the table was made, not on a tick."""
    return ATTACH + step * TICK_NS + 1234567


def forked(table: Table, parent: int, pid: int, step: int) -> ProcessKey:
    table.fork(at(step), parent, pid, pid)
    return ProcessKey(pid, at(step))


def entry(table: Table, key: ProcessKey) -> Entry:
    found = table.find(key)
    assert found is not None
    return found


def record(table: Table, key: ProcessKey) -> ProcessRecord:
    return table.record(entry(table, key))


def lineage(table: Table, key: ProcessKey) -> list[int]:
    return [each.pid for each in table.ancestors(entry(table, key), 32)]


def test_lineage_goes_through_dead_parents(table: Table):
    """A dead parent stays between its child and its own parent."""
    forked(table, 1, 10, 1)
    forked(table, 10, 11, 2)
    last = forked(table, 11, 12, 3)
    table.exit(at(4), 11, 11)
    table.exit(at(5), 10, 10)
    assert lineage(table, last) == [12, 11, 10, 1]


def test_a_key_of_the_tick_finds_the_process_born_a_little_later(table: Table):
    """The event's time is later than the start time that /proc shows; far later is another process."""
    key = forked(table, 1, 10, 1)
    cut = key.start_ns - key.start_ns % TICK_NS
    assert entry(table, ProcessKey(10, cut)).pid == 10
    assert entry(table, ProcessKey(10, cut - LATE_NS + TICK_NS)).pid == 10
    assert table.find(ProcessKey(10, cut - LATE_NS - TICK_NS)) is None
    assert table.find(ProcessKey(10, cut + TICK_NS)) is None
    assert table.find(ProcessKey(10, key.start_ns + 1)) is None
    assert table.find(ProcessKey(11, cut)) is None


def test_of_two_processes_of_one_pid_the_first_after_the_start_is_meant(table: Table):
    """Both began within the same half second; the key's tick decides."""
    first = forked(table, 1, 10, 1)
    table.exit(at(2), 10, 10)
    second = forked(table, 1, 10, 20)
    assert entry(table, ProcessKey(10, first.start_ns - first.start_ns % TICK_NS)).born_ns == first.start_ns
    assert entry(table, ProcessKey(10, second.start_ns - second.start_ns % TICK_NS)).born_ns == second.start_ns


def test_of_two_processes_in_one_tick_the_living_one_is_meant(table: Table, proc: Proc):
    """The key was read from /proc, which shows the living."""
    table.fork(at(1), 1, 10, 10)
    table.exit(at(1) + 1, 10, 10)
    table.fork(at(1) + 2, 1, 10, 10)
    seen = proc.show(10, at(1))
    found = entry(table, ProcessKey(10, seen.start_ns))
    assert (found.exited_ns, found.forked_ns) == (None, at(1) + 2)


def test_handing_out_a_living_record_confirms_its_start(table: Table, proc: Proc):
    """The start time becomes that of /proc, and with it name and uid."""
    key = forked(table, 1, 10, 2)
    proc.show(10, at(1), comm="shell", uid=5)
    found = record(table, key)
    assert found.key == ProcessKey(10, at(1) - at(1) % TICK_NS)
    assert (found.comm, found.uid) == ("shell", 5)


def test_another_process_in_proc_confirms_nothing(table: Table, proc: Proc):
    """What has the pid now and began later is not the record's process."""
    key = forked(table, 1, 10, 2)
    proc.show(10, at(90), comm="other")
    assert record(table, key).key == key


def test_threads_neither_make_nor_end_a_process(table: Table):
    """A process ends with its last thread, also when the first one went before."""
    key = forked(table, 1, 10, 1)
    table.fork(at(2), 10, 99, 10)
    table.exit(at(3), 10, 10)
    assert record(table, key).exited_ns is None
    table.exit(at(4), 99, 10)
    assert record(table, key).exited_ns == at(4)
    assert table.find(ProcessKey(99, at(2))) is None


def test_the_end_of_an_older_process_is_asked_from_proc(table: Table, proc: Proc):
    """Its threads were never counted, so /proc says whether the last one has ended."""
    old = table.observe(proc.show(20, 5 * TICK_NS))
    key = ProcessKey(20, old.born_ns)
    table.exit(at(1), 21, 20)
    assert proc.asked == []
    table.exit(at(2), 20, 20)
    assert record(table, key).exited_ns is None
    proc.show(20, 5 * TICK_NS, alive=False)
    table.exit(at(3), 22, 20)
    assert record(table, key).exited_ns == at(3)


def test_a_late_end_is_not_taken_for_the_next_process_of_the_pid(table: Table, proc: Proc):
    """The kernel may tell of an end after the pid was given away."""
    forked(table, 1, 10, 1)
    proc.show(10, at(2))
    new = forked(table, 1, 10, 2)
    table.exit(at(3), 10, 10)
    assert record(table, new).exited_ns is None
    del proc.processes[10]
    table.exit(at(4), 10, 10)
    found = table.find(new) or table.find(ProcessKey(10, new.start_ns - new.start_ns % TICK_NS))
    assert found is not None
    assert found.exited_ns == at(4)


def test_executions_uids_and_names_follow_events(table: Table):
    """Children inherit; each event changes one process."""
    parent = forked(table, 1, 10, 1)
    table.comm(10, b"shell\0\0\0")
    table.uid(10, 33)
    child = forked(table, 10, 11, 2)
    table.exec(at(3), 11)
    table.exec(at(4), 11)
    mother, own = record(table, parent), record(table, child)
    assert (mother.comm, mother.uid, mother.exec_counter) == ("shell", 33, 0)
    assert (own.uid, own.exec_counter, own.exec_ns, own.image) == (33, 2, at(4), None)
    assert [each.pid for each in table.executed] == [11, 11]


def test_a_process_that_proc_showed_before_its_event_gets_its_parent(table: Table, proc: Proc):
    """Looking at /proc and reading events overlap; the event is the better word."""
    forked(table, 1, 10, 1)
    seen = table.observe(proc.show(11, at(2)))
    assert seen.gap
    table.fork(at(2), 10, 11, 11)
    assert not seen.gap
    assert [each.pid for each in table.ancestors(seen, 32)] == [11, 10, 1]


def test_a_loss_makes_a_gap(table: Table, proc: Proc):
    """A process that nobody announced has no parent, and its lineage ends; one that is older than us is not a gap."""
    forked(table, 1, 10, 1)
    table.lost(5, fresh=True)
    born = table.observe(proc.show(11, at(2)))
    older = table.observe(proc.show(12, ATTACH - 3 * TICK_NS))
    child = forked(table, 11, 13, 3)
    assert (born.gap, born.pre_attach, older.gap, older.pre_attach) == (True, False, False, True)
    assert lineage(table, child) == [13, 11]
    assert (table.losses, table.epoch, table.dirty) == (5, 1, True)


def test_a_parent_is_proved_again_after_a_loss(table: Table, proc: Proc):
    """A stale record is no parent: its pid may be another's by now."""
    key = forked(table, 1, 10, 1)
    table.lost(1, fresh=True)
    proc.show(10, at(30))
    child = forked(table, 10, 11, 40)
    assert record(table, key).exited_ns is not None
    assert lineage(table, child) == [11, 10]
    assert entry(table, ProcessKey(10, at(30) - at(30) % TICK_NS)).gap


def test_a_parent_that_is_gone_after_a_loss_leaves_a_gap(table: Table):
    """Nobody can say any more who that was."""
    forked(table, 1, 10, 1)
    table.lost(1, fresh=True)
    child = forked(table, 10, 11, 2)
    assert record(table, child).gap
    assert lineage(table, child) == [11]


def test_a_proved_parent_keeps_its_own_lineage(table: Table, proc: Proc):
    """It was born before the loss, so who made it is known."""
    forked(table, 1, 10, 1)
    table.lost(1, fresh=True)
    proc.show(10, at(1))
    assert lineage(table, forked(table, 10, 11, 2)) == [11, 10, 1]


def test_counters_that_lived_through_a_loss_are_lower_bounds(table: Table, proc: Proc):
    """For ever, except of those who had ended before."""
    dead, living = forked(table, 1, 10, 1), forked(table, 1, 11, 1)
    table.exit(at(2), 10, 10)
    table.lost(1, fresh=True)
    proc.show(11, at(1))
    young = forked(table, 1, 12, 3)
    table.lost(1, fresh=False)
    assert record(table, dead).counter_exact
    assert not record(table, living).counter_exact
    assert record(table, young).counter_exact


def test_what_proc_does_not_show_after_a_loss_has_ended(table: Table, proc: Proc):
    """Records that were not confirmed are listed, and end when told so."""
    key = forked(table, 1, 10, 1)
    assert table.unconfirmed() == []
    table.lost(1, fresh=True)
    table.observe(proc.processes[1])
    assert table.unconfirmed() == [10]
    table.missing(10, at(9))
    assert record(table, key).exited_ns == at(9)


def test_an_end_that_was_concluded_wrongly_is_taken_back(table: Table, proc: Proc):
    """/proc shows the very process alive."""
    key = forked(table, 1, 10, 1)
    table.exit(at(2), 10, 10)
    found = table.observe(proc.show(10, at(1)))
    assert found is table.find(ProcessKey(10, key.start_ns - key.start_ns % TICK_NS))
    assert found.exited_ns is None


def test_dead_leaves_go_first(table: Table):
    """A storm of short-lived processes pushes out only others like them."""
    forked(table, 1, 10, 1)
    last = forked(table, 10, 11, 2)
    table.exit(at(3), 10, 10)
    for number in range(200):
        forked(table, 1, 1000 + number, 4 + number)
        table.exit(at(4 + number), 1000 + number, 1000 + number)
    assert len(table) == 50
    assert lineage(table, last) == [11, 10, 1]
    assert table.find(ProcessKey(1000, at(4))) is None
    assert table.find(ProcessKey(1199, at(203))) is not None


def test_a_chain_of_the_dead_is_bounded(table: Table):
    """One that only grows loses its far end, and says so."""
    last = ProcessKey(1, TICK_NS)
    for number in range(200):
        last = forked(table, last.pid, 1000 + number, 1 + number)
        table.exit(at(1 + number), 999 + number, 999 + number)
    assert len(table) == 50
    whole = list(table.ancestors(entry(table, last), 100))
    assert whole[-1].gap
    assert 40 < len(whole) <= 50
    assert table.record(whole[-1]).parent is None


def test_living_records_are_bounded_too(table: Table):
    """More living processes than there is room for: the first go."""
    for number in range(200):
        forked(table, 1, 1000 + number, 1)
    assert len(table) == 50
