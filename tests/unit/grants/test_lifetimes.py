"""How long a grant may last."""

from __future__ import annotations

import pytest

from attestd.appraisal.model import CallerKind
from attestd.errors import NotPermittedError, UsageError
from attestd.grants.lifetimes import BOUNDS, WHY, bounded, duration_ns, lifetime, renewed
from tests.support.results import INSTANCE, MINUTE, NOW, SESSION, make_grant, make_result


@pytest.mark.parametrize(
    ("word", "kind", "until", "key"),
    [
        ("", "binary", None, None),
        ("once", "once", None, None),
        ("process", "process", None, INSTANCE),
        ("session", "session", None, SESSION),
        ("standing", "standing", None, None),
        ("15m", "until", NOW + 15 * MINUTE, None),
        ("8h", "until", NOW + 480 * MINUTE, None),
    ],
)
def test_words(word: str, kind: str, until: int | None, key: str | None):
    """Each word means one lifetime."""
    made = lifetime(word, make_result(), "durable", "exact", NOW)
    assert (made.kind, made.until_ns, made.key) == (kind, until, key)


@pytest.mark.parametrize("word", ["forever", "15", "15 m", "1d", "-1h", "٣m", "session "])
def test_unknown_words(word: str):
    """A word that is not in the table is refused with the table."""
    with pytest.raises(UsageError, match="allowed are"):
        lifetime(word, make_result(), "durable", "exact", NOW)


@pytest.mark.parametrize("word", ["0m", "25h", "9999m"])
def test_times_out_of_range(word: str):
    """A time is at least a minute and at most a day."""
    with pytest.raises(UsageError, match="1m to 24h"):
        duration_ns(word)


def test_session_bound_times_carry_the_session():
    """Where the session is the bound, once and times end with it too."""
    for word in ("once", "1h"):
        assert lifetime(word, make_result(), "session", "exact", NOW).key == SESSION


def test_bounds():
    """What was approved decides how long it may last at most."""
    assert bounded(make_result(), "image", inline=False) == "durable"
    assert bounded(make_result(), "script", inline=True) == "session"
    assert bounded(make_result(durable=False), "module", inline=False) == "session"
    assert bounded(make_result(kind=CallerKind.INTERACTIVE), "image", inline=False) == "session"
    assert bounded(make_result(), "inline", inline=False) == "session"
    assert bounded(make_result(), "stdin", inline=False) == "process"
    assert bounded(make_result(), "", inline=False) == "process"
    assert BOUNDS.keys() == WHY.keys()


def test_missing_facts_refuse():
    """A lifetime that hangs on a fact which is missing is refused."""
    bare = make_result(instance="", login_session="")
    for word in ("process", "session"):
        with pytest.raises(NotPermittedError, match="could be recognised again"):
            lifetime(word, bare, "durable", "exact", NOW)


def test_binary_needs_exact():
    """A grant until the binary changes is about one binary."""
    with pytest.raises(UsageError):
        lifetime("binary", make_result(), "durable", "package", NOW)
    assert lifetime("", make_result(), "durable", "package", NOW).kind == "standing"


def test_renewal():
    """A grant with an end gets a new end and stays what it is otherwise; others cannot be renewed."""
    grant = make_grant(lifetime="until", until_ns=NOW, key=SESSION)
    longer = renewed(grant, "1h", NOW)
    assert (longer.lifetime.until_ns, longer.lifetime.key, longer.id) == (NOW + 60 * MINUTE, SESSION, "g1")
    for other, word in ((make_grant(), "1h"), (grant, "standing"), (make_grant(lifetime="until", revoked_ns=1), "1h")):
        with pytest.raises(UsageError, match="cannot renew"):
            renewed(other, word, NOW)
