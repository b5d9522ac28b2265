"""How many connections of one user are let in, as the settings say, and where they say nothing as the mode wants it."""

from __future__ import annotations

from typing import Final

from attestd.daemon.config import LimitSettings
from attestd.enforcement.listener import Admission

SYSTEM_A_MINUTE: Final = 600
"""New connections of one user in a minute on a system installation: all users share the work and the log."""


def admission_of(limits: LimitSettings, *, user_mode: bool) -> Admission:
    """The limits of the front, counting from nothing."""
    return Admission(
        connections=limits.connections_per_uid,
        attesting=limits.attesting_per_uid,
        a_minute=_a_minute(limits, user_mode=user_mode),
    )


def renew_admission(admission: Admission, limits: LimitSettings, *, user_mode: bool) -> None:
    """Other limits from now on; what is open stays."""
    admission.set_limits(
        connections=limits.connections_per_uid,
        attesting=limits.attesting_per_uid,
        a_minute=_a_minute(limits, user_mode=user_mode),
    )


def _a_minute(limits: LimitSettings, *, user_mode: bool) -> int:
    return limits.connections_per_minute or (0 if user_mode else SYSTEM_A_MINUTE)
