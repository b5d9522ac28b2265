"""How many connections are let in."""

from __future__ import annotations

from attestd.daemon.admitting import SYSTEM_A_MINUTE, admission_of, renew_admission
from attestd.daemon.config import LimitSettings


def entered(settings: LimitSettings, *, user_mode: bool, tries: int) -> int:
    """How many of so many tries in a row are let in."""
    admission = admission_of(settings, user_mode=user_mode)
    return sum(admission.enter(5) for _ in range(tries))


def test_new_connections_are_counted_by_the_minute_on_a_system_installation_only():
    """Where the settings say nothing: a bound there, none in user mode; what they say holds in both."""
    many = LimitSettings(connections_per_uid=10**6, attesting_per_uid=10**6)
    assert entered(many, user_mode=True, tries=SYSTEM_A_MINUTE + 500) == SYSTEM_A_MINUTE + 500
    assert SYSTEM_A_MINUTE <= entered(many, user_mode=False, tries=SYSTEM_A_MINUTE + 5000) < SYSTEM_A_MINUTE + 5000
    few = LimitSettings(connections_per_uid=10**6, attesting_per_uid=10**6, connections_per_minute=7)
    assert entered(few, user_mode=True, tries=20) == entered(few, user_mode=False, tries=20) == 7


def test_other_limits_hold_from_now_on():
    """A reload changes what comes next."""
    admission = admission_of(LimitSettings(), user_mode=True)
    assert admission.enter(5)
    renew_admission(admission, LimitSettings(connections_per_uid=1), user_mode=True)
    assert not admission.enter(5)
    assert admission.enter(6)
