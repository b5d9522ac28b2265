"""The cause of a deny that no policy made."""

from __future__ import annotations

from attestd.decision.causes import expired, first_end, unpermitted
from attestd.decision.entities import Named
from attestd.errors import Cause
from attestd.grants.match import Match, Rejected
from tests.support.results import MINUTE, NOW, make_grant

GET = Named(action="call_tool", type="Tool", name="get")


def rejected(cause: Cause, **changes: object) -> Rejected:
    """A grant that failed for this cause."""
    return Rejected(grant=make_grant(**changes), cause=cause, detail=f"because {cause}")


def test_the_grant_that_names_the_target_speaks():
    """A grant that names the target but does not hold gives its cause before wider statements."""
    match = Match(
        linked=(make_grant(tools=("set",)),),
        rejected=(rejected(Cause.LAUNCHER, tools=("set",)), rejected(Cause.LEVEL_TOO_LOW), rejected(Cause.EXPIRED)),
    )
    assert unpermitted(match, "time", GET).cause is Cause.LEVEL_TOO_LOW


def test_grants_of_other_servers_are_silent():
    """Nothing is said of a grant for another server."""
    match = Match(linked=(make_grant(server="x"),), rejected=(rejected(Cause.EXPIRED, server="x"),))
    assert unpermitted(match, "time", GET).cause is Cause.NO_GRANT


def test_out_of_scope_and_no_grant():
    """A grant for the server that does not reach so far differs from none at all."""
    assert unpermitted(Match(), "time", GET).cause is Cause.NO_GRANT
    assert unpermitted(Match(linked=(make_grant(tools=()),)), "time", GET).cause is Cause.OUT_OF_SCOPE
    assert unpermitted(Match(rejected=(rejected(Cause.EXPIRED, tools=()),)), "time", GET).cause is Cause.OUT_OF_SCOPE


def test_server_requests_have_their_own_cause():
    """A request of the server that no grant accepts is told as such."""
    asked = Named(action="elicit", type="ServerRequest", name="elicitation/create")
    assert unpermitted(Match(linked=(make_grant(),)), "time", asked).cause is Cause.SERVER_REQUEST


def test_details_name_no_other_tool():
    """The detail of a deny does not tell what the caller's grants or others name."""
    match = Match(linked=(make_grant(tools=("secret_tool",)),))
    assert "secret_tool" not in unpermitted(match, "time", GET).detail


def test_expired_moves_what_has_ended():
    """What has ended moves from linked to rejected; the rest stays."""
    match = Match(linked=(make_grant(lifetime="until", until_ns=NOW), make_grant(id="g2")))
    later = expired(match, NOW)
    assert [grant.id for grant in later.linked] == ["g2"]
    assert [(each.grant_id, each.cause) for each in later.rejected] == [("g1", Cause.EXPIRED)]


def test_first_end():
    """The earliest end in time, or none."""
    assert first_end([]) is None
    assert first_end([make_grant()]) is None
    ends = [make_grant(lifetime="until", until_ns=NOW + minute * MINUTE) for minute in (3, 1, 2)]
    assert first_end(ends) == NOW + MINUTE


def test_details_that_only_repeat_their_cause_are_marked():
    """A refusal leaves them out; those that say more are shown."""
    tool = Named(action="call_tool", type="Tool", name="x")
    assert unpermitted(Match(), "time", tool).plain
    assert unpermitted(Match(linked=(make_grant(),)), "time", tool).plain
    ask = Named(action="elicit", type="ServerRequest", name="elicitation/create")
    assert unpermitted(Match(), "time", ask).plain
    for detail, plain in (("the grant has expired", True), ("the grant was revoked", False)):
        rejected = Rejected(grant=make_grant(tools=("x",)), cause=Cause.EXPIRED, detail=detail)
        deny = unpermitted(Match(rejected=(rejected,)), "time", tool)
        assert (deny.detail, deny.plain) == (detail, plain)
