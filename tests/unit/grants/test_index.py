"""Finding grants by who holds them."""

from __future__ import annotations

import msgspec

from attestd.grants.index import GrantIndex
from attestd.grants.model import Identity
from tests.support.results import NOW, OTHER, PROGRAM, make_grant, make_result

WHO = Identity(title="client.py", program=PROGRAM, chain="12" * 32, level=2, lineage="npm:tool /usr")


def test_own_grants_only():
    """A caller finds its grants on this server by program, package and lineage, and nobody else's."""
    index = GrantIndex()
    grants = [
        make_grant(id="exact"),
        make_grant(id="package", program_kind="package", program="npm:tool"),
        make_grant(id="lineage", program_kind="lineage", program="npm:tool /usr"),
        make_grant(id="other-server", server="x"),
        make_grant(id="other-uid", uid=1),
        make_grant(id="other-program", program=OTHER),
    ]
    for grant in grants:
        index.put(grant)
    verified = make_result(package="npm:tool@1", lineage="npm:tool /usr")
    assert [grant.id for grant in index.own(verified, "time")] == ["exact", "lineage", "package"]
    assert [grant.id for grant in index.own(make_result(lineage="npm:tool /usr"), "time")] == ["exact"]


def test_ten_thousand_others_are_not_looked_at():
    """The grants that are offered to the matcher are the caller's own, however many others there are."""
    index = GrantIndex()
    for number in range(10_000):
        index.put(make_grant(id=f"n{number}", program=f"{number:064x}"))
    index.put(make_grant())
    assert len(index) == 10_001
    assert [grant.id for grant in index.own(make_result(), "time")] == ["g1"]
    assert len(index._by_owner[(1000, "exact", PROGRAM, "time")]) == 1


def test_put_replaces_and_drop_forgets():
    """A grant put again under its id moves; a dropped one leaves nothing behind."""
    index = GrantIndex()
    index.put(make_grant(identity=WHO))
    index.put(make_grant(identity=WHO, program=OTHER))
    assert index.own(make_result(), "time") == ()
    assert len(list(index)) == 1
    assert index.drop("g1") is not None
    assert index.drop("g1") is None
    assert index.get("g1") is None
    assert index._by_owner == {}
    assert index._by_name == {}


def test_predecessor():
    """An updated program finds the youngest grant of its lineage, before one of its title, before none."""
    index = GrantIndex()
    index.put(make_grant(id="title", identity=msgspec.structs.replace(WHO, lineage=""), created_ns=NOW))
    index.put(make_grant(id="old", identity=WHO, created_ns=1))
    index.put(make_grant(id="new", identity=msgspec.structs.replace(WHO, title="x"), created_ns=2))
    update = make_result(program=OTHER, lineage="npm:tool /usr")
    found = index.predecessor(update, "time")
    assert found is not None
    assert found.id == "new"
    by_title = index.predecessor(make_result(program=OTHER), "time")
    assert by_title is not None
    assert by_title.id == "title"
    assert index.predecessor(make_result(title="nobody"), "time") is None
    assert index.predecessor(update, "elsewhere") is None
    assert index.predecessor(make_result(uid=7), "time") is None
