"""The fake keeps the contract of the service, so that what is tested with it holds for the daemon."""

from __future__ import annotations

import msgspec
import pytest

from attestd.control import messages as m
from attestd.control.service import ControlCaller, Service
from attestd.errors import NothingToDoError, NotPermittedError
from tests.fakes.service import FakeService

ROOT: ControlCaller[str] = ControlCaller(uid=0, pid=1, result="attested", how="root")
AGENT: ControlCaller[str] = ControlCaller(uid=0, pid=2, result="attested", how="", why_not="node is an ancestor")


@pytest.fixture
async def service() -> FakeService:
    """A fresh one."""
    return FakeService()


async def test_the_fake_is_a_service(service: FakeService) -> None:
    """Every method of the protocol is there."""
    typed: Service[str] = service
    assert all(hasattr(typed, name) for name in vars(Service) if not name.startswith("_"))


async def test_a_code_is_used_once(service: FakeService) -> None:
    """The second approval of a code finds nothing."""
    terms = m.Terms(tools=("a",), lifetime="standing")
    shown = await service.pending_show(ROOT, m.ShowPending(pending="7f3k9qrt", terms=terms))
    grant = await service.approve(ROOT, m.Approve(pending="7F3K-9QRT", terms=terms, shown=shown.proposed.terms))
    assert grant.object.tools == ("a",)
    with pytest.raises(NothingToDoError):
        await service.approve(ROOT, m.Approve(pending="7F3K-9QRT"))


async def test_showing_changes_nothing(service: FakeService) -> None:
    """A look at a pending client leaves it waiting and grants nothing."""
    before = dict(service.granted)
    await service.pending_show(ROOT, m.ShowPending(pending="7F3K-9QRT"))
    assert service.granted == before
    assert "7F3K-9QRT" in service.waiting


async def test_only_what_was_shown_is_granted(service: FakeService) -> None:
    """When the proposal has changed since, nothing is granted and the code is kept."""
    shown = await service.pending_show(ROOT, m.ShowPending(pending="7F3K-9QRT"))
    waiting = service.waiting["7F3K-9QRT"]
    more = (*waiting.wants, msgspec.structs.replace(waiting.wants[0], name="delete_all"))
    service.waiting["7F3K-9QRT"] = msgspec.structs.replace(waiting, wants=more)
    with pytest.raises(NotPermittedError):
        await service.approve(ROOT, m.Approve(pending="7F3K-9QRT", shown=shown.proposed.terms))
    assert "7F3K-9QRT" in service.waiting


async def test_callers_without_a_right_are_refused_and_recorded(service: FakeService) -> None:
    """The refusal says why and is in the log."""
    await service.authorize(ROOT, m.Reload())
    with pytest.raises(NotPermittedError, match="node is an ancestor"):
        await service.authorize(AGENT, m.Reload())
    assert service.records[-1].cause == "not_approver"


async def test_revoking_is_all_or_nothing(service: FakeService) -> None:
    """One unknown grant keeps all the others."""
    with pytest.raises(NothingToDoError):
        await service.grants_revoke(ROOT, m.RevokeGrants(grants=("g-1", "g-9")))
    assert service.granted["g-1"].revoked is None
