"""The store of grants and waiting requests."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from attestd.errors import AttestdError, NothingToDoError
from attestd.grants.integrity import body_digest
from attestd.grants.lifetimes import renewed
from attestd.grants.model import Grant
from attestd.grants.store import Store
from tests.support.results import MINUTE, NOW, make_grant, make_pending, make_result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store goes."""
    return tmp_path / "state" / "grants.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """An empty, loaded store."""
    store = Store(path)
    store.load({})
    yield store
    store.close()


def log_of(*grants: Grant) -> dict[str, str]:
    """What the audit log says is in force."""
    return {grant.id: body_digest(grant) for grant in grants}


def reopened(store: Store, path: Path, *audited: Grant) -> Store:
    """The same file opened by the next daemon."""
    store.close()
    again = Store(path)
    again.load(log_of(*audited))
    return again


def tamper(path: Path, statement: str, *values: object) -> None:
    """What a process of the same user can do while the daemon is down."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, values)


def test_insert_survives_a_restart(store: Store, path: Path):
    """A committed grant is back after reopening, found by its holder."""
    grant = make_grant()
    store.insert(grant, 7)
    assert store.index.own(make_result(), "time") == (grant,)
    with closing(reopened(store, path, grant)) as again:
        assert again.index.own(make_result(), "time") == (grant,)
        assert [row.audit_seq for row in again.rows()] == [7]


def test_store_holds_nothing_before_load(store: Store, path: Path):
    """Rows are not grants until the log has confirmed them."""
    store.insert(make_grant(), 1)
    store.close()
    with closing(Store(path)) as again:
        assert len(again.index) == 0


def test_row_behind_the_daemons_back(store: Store, path: Path):
    """A row that was inserted without an approval never becomes a grant and is reported."""
    honest = make_grant()
    store.insert(honest, 1)
    store.close()
    tamper(
        path,
        "INSERT INTO grants SELECT 'evil', uid, server, program_kind, program, lifetime, until_ns, body, digest,"
        " audit_seq, 0, NULL, NULL, NULL FROM grants",
    )
    with closing(Store(path)) as again:
        verified = again.load(log_of(honest))
        assert [refused.grant_id for refused in verified.refused] == ["evil"]
        assert [grant.id for grant in again.index] == ["g1"]


def test_edit_behind_the_daemons_back(store: Store, path: Path):
    """A widened body is refused, and so is a grant whose revocation was undone."""
    honest = make_grant()
    store.insert(honest, 1)
    store.insert(make_grant(id="g2"), 2)
    store.revoke("g2", NOW, 3)
    store.close()
    tamper(path, "UPDATE grants SET body = CAST(replace(CAST(body AS TEXT), 'get', '*') AS BLOB) WHERE id = 'g1'")
    tamper(path, "UPDATE grants SET revoked_ns = NULL WHERE id = 'g2'")
    with closing(Store(path)) as again:
        verified = again.load(log_of(honest))
        assert sorted(refused.grant_id for refused in verified.refused) == ["g1", "g2"]
        assert len(again.index) == 0


def test_removed_row_is_reported(store: Store, path: Path):
    """A grant that was deleted behind the daemon's back is missing, not forgotten."""
    grant = make_grant()
    store.insert(grant, 1)
    store.close()
    tamper(path, "DELETE FROM grants")
    with closing(Store(path)) as again:
        assert again.load(log_of(grant)).missing == ("g1",)


def test_revoke(store: Store, path: Path):
    """A revoked grant is gone at once and after a restart; a second time there is nothing to do."""
    store.insert(make_grant(), 1)
    assert store.revoke("g1", NOW, 2).id == "g1"
    assert store.index.own(make_result(), "time") == ()
    with pytest.raises(NothingToDoError):
        store.revoke("g1", NOW, 3)
    with closing(reopened(store, path)) as again:
        assert len(again.index) == 0
        assert [row.revoked_ns for row in again.rows()] == [NOW]


def test_consume_is_true_once(store: Store):
    """A grant for one use is used up by exactly one caller; other grants are not consumed at all."""
    store.insert(make_grant(lifetime="once"), 1)
    store.insert(make_grant(id="g2"), 2)
    assert store.consume("g1", NOW, 3)
    assert not store.consume("g1", NOW, 4)
    assert not store.consume("g2", NOW, 5)
    assert not store.consume("nobody", NOW, 6)
    assert [grant.id for grant in store.index] == ["g2"]


def test_renew(store: Store, path: Path):
    """A renewed grant has a new body and record; one that has ended cannot be renewed."""
    grant = make_grant(lifetime="until", until_ns=NOW)
    store.insert(grant, 1)
    longer = renewed(grant, "1h", NOW)
    store.renew(longer, 2)
    assert store.index.get("g1") == longer
    store.revoke("g1", NOW, 3)
    with pytest.raises(NothingToDoError):
        store.renew(longer, 4)
    with pytest.raises(NothingToDoError):
        store.renew(make_grant(id="nobody"), 4)
    with closing(reopened(store, path, longer)) as again:
        assert again.rows()[0].audit_seq == 2


def test_uses_are_counted_and_written_together(store: Store, path: Path):
    """Uses show after flush, survive, and do not disturb the digest."""
    grant = make_grant()
    store.insert(grant, 1)
    for moment in range(3):
        store.used("g1", NOW + moment)
    store.used("nobody", NOW)
    assert store.rows()[0].hits == 0
    store.flush()
    store.flush()
    found = store.index.get("g1")
    assert found is not None
    assert (found.hits, found.last_used_ns) == (3, NOW + 2)
    store.used("g1", NOW + MINUTE)
    with closing(reopened(store, path, grant)) as again:
        assert again.rows()[0].hits == 4
        assert len(again.index) == 1


def test_full_disk_writes_nothing_half(store: Store):
    """When the disk is full the insert fails with a hint, and neither file nor memory has the grant."""
    store.insert(make_grant(), 1)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    huge = make_grant(id="huge", tools=tuple(f"tool-{number}" for number in range(20_000)))
    with pytest.raises(AttestdError, match="disk is full") as refused:
        store.insert(huge, 2)
    assert "make room" in refused.value.hint
    assert [row.id for row in store.rows()] == ["g1"]
    assert [grant.id for grant in store.index] == ["g1"]
    store._database.execute("PRAGMA max_page_count = 100000")
    store.insert(huge, 3)
    assert len(store.index) == 2


def test_same_id_twice(store: Store):
    """An id cannot be given twice; the first grant stays."""
    store.insert(make_grant(), 1)
    with pytest.raises(AttestdError):
        store.insert(make_grant(tools=("*",)), 2)
    assert store.index.get("g1") == make_grant()


def test_pendings(store: Store, path: Path):
    """Waiting requests survive, expire, are replaced by code and dropped."""
    first, other = make_pending(), make_pending(code="AAAA-AAAA", expires_ns=NOW)
    store.put_pending(first)
    store.put_pending(other)
    store.put_pending(make_pending(count=5))
    assert [(pending.code, pending.count) for pending in store.pendings(NOW)] == [("7F3K-9QRT", 5)]
    store.close()
    tamper(path, "UPDATE pending SET body = x'00' WHERE code = 'AAAA-AAAA'")
    with closing(Store(path)) as again:
        assert len(again.pendings(0)) == 1
        again.drop_pending("7F3K-9QRT")
        again.drop_pending("7F3K-9QRT")
        assert again.pendings(0) == ()
        again.put_pending(first)
        again.purge_pendings()
        assert again.pendings(0) == ()


CRASHING = """
import sys, itertools
from pathlib import Path
from attestd.grants.store import Store
from tests.support.results import make_grant
store = Store(Path(sys.argv[1]))
store.load({})
for number in itertools.count():
    store.insert(make_grant(id=f"g{number}"), number)
    print(number, flush=True)
"""


def test_acknowledged_grants_survive_sigkill(path: Path):
    """Every insert that returned before the process was killed is there, whole, afterwards."""
    child = subprocess.Popen([sys.executable, "-c", CRASHING, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout as output:
        for line in output:
            if int(line) >= 50:
                child.send_signal(signal.SIGKILL)
                break
        acknowledged = 50 + len(output.readlines())
    with closing(Store(path)) as store:
        grants = [make_grant(id=row.id) for row in store.rows()]
        assert len(grants) >= acknowledged + 1
        assert store.load(log_of(*grants)).refused == ()
