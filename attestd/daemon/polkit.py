"""May this process do that? polkit's answer, after it has asked the person where its action says so.

The subject is the caller of the control socket as the kernel named it: pid, start time and uid, and its pidfd for a
polkit that knows them. What comes back is a closed word; whatever is not a clear yes is a no:
- An authorization that polkit kept from before (``auth_self_keep``), or would keep, is a no: an agent could use it
  without a password. The shipped actions keep nothing; a rule of the administrator may not change that.
- No bus, no polkit, no such action, an answer that cannot be read or does not come: PolkitError.
"""

from __future__ import annotations

import secrets
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from attestd.daemon.system_bus import SYSTEM_BUS, BusError, Call, RemoteBusError, ask
from attestd.errors import AttestdError

APPROVE: Final = "dev.attestd.approve"
MANAGE: Final = "dev.attestd.manage"
NAME: Final = "org.freedesktop.PolicyKit1"
PATH: Final = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE: Final = "org.freedesktop.PolicyKit1.Authority"
ASK_S: Final = 300.0
"""How long a person may take."""
LOOK_S: Final = 10.0
_INTERACTIVE: Final = 1
_KEPT: Final = "polkit.temporary_authorization_id"
_DISMISSED: Final = "polkit.dismissed"


class PolkitError(AttestdError):
    """polkit could not be asked, or gave no answer that can be read."""

    code = "polkit"


class Answer(Enum):
    """What polkit said."""

    YES = "yes"
    NO = "no"
    """Not authorized, or wrong passwords."""
    DISMISSED = "dismissed"
    """The person gave no password."""
    NO_AGENT = "no agent"
    """Somebody would have to be asked, and no program is there that could."""
    KEPT = "kept"
    """Authorized by a password that may have been given to somebody else before."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants it."""

    pid: int
    start: int
    """Clock ticks since boot."""
    uid: int
    pidfd: int = -1
    """-1: none is held."""


class Authority(Protocol):
    """Whoever can be asked."""

    async def check(self, subject: Subject, action: str, request: str) -> Answer:
        """Ask, and wait for the person. ``request``: a few plain words for the dialog.

        Raises PolkitError. Cancelled, it takes the question back.
        """

    async def version(self) -> str:
        """Which polkit answers. Raises PolkitError."""

    async def knows(self, action: str) -> bool:
        """Whether it has this action. Raises PolkitError."""


class _Result(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    authorized: bool
    challenge: bool
    details: dict[str, str]


class Polkit:
    """The polkit of this machine, through the system bus."""

    def __init__(self, bus: Path = SYSTEM_BUS) -> None:
        self._bus = bus

    async def check(self, subject: Subject, action: str, request: str) -> Answer:
        """See ``Authority``."""
        word = secrets.token_hex(16)
        who: dict[str, tuple[str, int]] = {
            "pid": ("u", subject.pid),
            "start-time": ("t", subject.start),
            "uid": ("i", subject.uid),
        }
        if subject.pidfd >= 0:
            who["pidfd"] = ("h", subject.pidfd)
        body = (("unix-process", who), action, {"request": request}, _INTERACTIVE, word)
        call = _call("CheckAuthorization", "(sa{sv})sa{ss}us", body)
        back = await self._ask(call, ASK_S, undo=_call("CancelCheckAuthorization", "s", (word,)))
        try:
            (found,) = back
            result = msgspec.convert(found, _Result, strict=True)
        except (ValueError, TypeError) as error:
            raise PolkitError("cannot read polkit's answer: expected (bba{ss})") from error
        return verdict(authorized=result.authorized, challenge=result.challenge, details=result.details)

    async def version(self) -> str:
        """See ``Authority``."""
        call = Call(NAME, PATH, "org.freedesktop.DBus.Properties", "Get", "ss", (INTERFACE, "BackendVersion"))
        back = await self._ask(call, LOOK_S)
        try:
            ((signature, value),) = back
        except (ValueError, TypeError) as error:
            raise PolkitError("cannot read polkit's version: expected one value") from error
        return str(value) if signature == "s" else "unknown"

    async def knows(self, action: str) -> bool:
        """See ``Authority``."""
        back = await self._ask(_call("EnumerateActions", "s", ("",)), LOOK_S)
        try:
            return any(row[0] == action for row in back[0])
        except (LookupError, TypeError) as error:
            raise PolkitError("cannot read polkit's list of actions") from error

    async def _ask(self, call: Call, seconds: float, undo: Call | None = None) -> tuple[Any, ...]:
        try:
            return await ask(self._bus, call, seconds=seconds, undo=undo)
        except RemoteBusError as error:
            raise PolkitError(f"cannot ask polkit: {error.message}", hint=_HINT) from error
        except BusError as error:
            raise PolkitError(f"cannot ask polkit: {error.message}", hint=error.hint or _HINT) from error


_HINT: Final = "see what is wrong with: attestctl doctor; root may decide without polkit"


def verdict(*, authorized: bool, challenge: bool, details: dict[str, str]) -> Answer:
    """The word for a result of CheckAuthorization."""
    if authorized:
        return Answer.KEPT if _KEPT in details else Answer.YES
    if _DISMISSED in details:
        return Answer.DISMISSED
    return Answer.NO_AGENT if challenge else Answer.NO


def _call(member: str, signature: str, body: tuple[Any, ...]) -> Call:
    return Call(NAME, PATH, INTERFACE, member, signature, body)
