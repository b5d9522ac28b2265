"""Refused callers that wait for a person's decision.

Rules. One entry per ``Key``: the same program, launched the same way, refused by the same server for the same kind of
reason is one question, whatever it asked for and however often. A program whose digest does not fix its code (inline
text, standard input, unresolved) is one question per process, so that nobody can slip under another's question. Codes
are single use and expire; a time-out never makes a grant. Everything is capped: wants per entry, entries per uid and in
total; beyond a cap the oldest entry of the same uid goes (or, for a newcomer, of the uid that has most), so one uid
cannot push out all of another's. A name that is too long is counted, never kept shortened: a shortened name would be
granted as something else.

An entry is written to the store when it is new or learns a new want, not on every repetition; counts are written by
``flush``.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.errors import Cause, NotPermittedError
from attestd.grants.codes import Guesses, RandomBytes, new_code, normalise, same
from attestd.grants.model import Pending, Want

FIXED_CODE = frozenset({"image", "script", "module"})
"""What a program may be made of for its digest to cover all of its code."""
NAME_CAP = 1024
URI_CAP = 8192

FAMILY: dict[Cause, str] = {
    Cause.NO_GRANT: "grant",
    Cause.OUT_OF_SCOPE: "grant",
    Cause.EXPIRED: "grant",
    Cause.LEVEL_TOO_LOW: "level",
    Cause.LAUNCHER: "launcher",
    Cause.INLINE: "inline",
    Cause.SEARCH_PATH: "search_path",
    Cause.SERVER_REQUEST: "server_request",
}
"""Causes that ask the same question of a person. A cause that is not here is a family of its own."""


class PendingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration. ``ttl_ns``: how long a code lives after the last refusal it stands for."""

    ttl_ns: int = 15 * 60 * 1_000_000_000
    per_uid: int = 64
    total: int = 512
    wants: int = 32


class PendingStore(Protocol):
    """Where entries survive a restart."""

    def put_pending(self, pending: Pending) -> None:
        """Insert or replace by code."""

    def drop_pending(self, code: str) -> None:
        """Remove; nothing if absent."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What makes two refusals the same question."""

    uid: int
    program: str
    chain: str
    server: str
    family: str
    inline: bool
    kind: str
    instance: str
    """Empty where the digest fixes the code."""


class Pendings:
    """The entries of one daemon. Not thread-safe: it belongs to the loop's thread."""

    def __init__(self, store: PendingStore, random_bytes: RandomBytes, limits: PendingLimits | None = None) -> None:
        self._store = store
        self._random = random_bytes
        self._limits = PendingLimits() if limits is None else limits
        self._entries: dict[Key, Pending] = {}
        self._unsaved: set[Key] = set()
        self._guesses = Guesses()

    def restore(self, saved: tuple[Pending, ...], now_ns: int) -> None:
        """Take over what the store kept; entries that have expired or make no sense are dropped from it.

        Only for a store that the constrained processes cannot write: a forged entry would be shown to a person as if
        the kernel had vouched for it. In user mode start empty instead; refused clients come back by themselves.
        """
        for pending in sorted(saved, key=lambda entry: entry.last_ns):
            try:
                result = msgspec.json.decode(pending.identity, type=AttestationResult)
                key = _key(result, pending.server, pending.cause, pending.runs)
            except (msgspec.MsgspecError, ValueError):
                self._store.drop_pending(pending.code)
            else:
                self._entries[key] = pending
        self.expire(now_ns)

    def add(
        self,
        result: AttestationResult,
        *,
        server: str,
        cause: Cause,
        method: str,
        name: str,
        runs: str,
        now_ns: int,
    ) -> Pending:
        """Note one refusal and return its entry, new or known. ``runs`` as in ``Pending.runs``."""
        self.expire(now_ns)
        key = _key(result, server, cause.value, runs)
        known = self._entries.pop(key, None)
        base = known if known is not None else self._new(result, server, cause, runs, now_ns)
        wants = self._wanted(base.wants, method, name)
        pending = msgspec.structs.replace(
            base,
            wants=wants,
            cause=cause.value,
            count=base.count + 1,
            last_ns=now_ns,
            expires_ns=now_ns + self._limits.ttl_ns,
            identity=msgspec.json.encode(result),
            display=result.display,
        )
        if known is None:
            self._make_room(result.uid)
        self._entries[key] = pending  # last in the order: the youngest
        if known is None or len(wants) != len(known.wants):
            self._store.put_pending(pending)
            self._unsaved.discard(key)
        else:
            self._unsaved.add(key)
        return pending

    def list(self, uid: int | None, now_ns: int) -> tuple[Pending, ...]:
        """Live entries of one uid (None: of all), oldest first."""
        self.expire(now_ns)
        return tuple(entry for entry in self._entries.values() if uid is None or entry.uid == uid)

    def find(self, typed: str, *, approver: str, uid: int | None, now_ns: int) -> Pending:
        """The live entry with this code, left in place, so that it can be shown before it is decided.

        ``approver`` names who tries, for the lock-out; ``uid`` limits what that approver may see (None: everything).
        Raises NotPermittedError for a code that is wrong, expired, used or another user's (all alike), and during a
        lock-out.
        """
        return self._entries[self._find(typed, approver, uid, now_ns)]

    def take(self, typed: str, *, approver: str, uid: int | None, now_ns: int) -> Pending:
        """As ``find``, and the code is used up."""
        key = self._find(typed, approver, uid, now_ns)
        pending = self._entries[key]
        self._remove(key)
        return pending

    def expire(self, now_ns: int) -> tuple[Pending, ...]:
        """Drop and return the entries whose time has passed."""
        over = [(key, entry) for key, entry in self._entries.items() if now_ns >= entry.expires_ns]
        for key, _ in over:
            self._remove(key)
        return tuple(entry for _, entry in over)

    def flush(self) -> None:
        """Write the counts that ``add`` kept in memory."""
        for key in list(self._unsaved):
            self._store.put_pending(self._entries[key])
            self._unsaved.discard(key)

    def _find(self, typed: str, approver: str, uid: int | None, now_ns: int) -> Key:
        self._guesses.admit(approver, now_ns)
        self.expire(now_ns)
        wanted = normalise(typed)
        found: Key | None = None
        for key, entry in self._entries.items():  # every entry is compared: the time tells nothing
            if same(entry.code, wanted) and (uid is None or entry.uid == uid):
                found = key
        if found is None:
            self._guesses.wrong(approver, now_ns)
            raise NotPermittedError(
                "cannot find a waiting request with this code: it is wrong, used, expired or another user's",
                hint="list what is waiting with: attestctl pending",
            )
        self._guesses.right(approver)
        return found

    def _new(self, result: AttestationResult, server: str, cause: Cause, runs: str, now_ns: int) -> Pending:
        codes = {entry.code for entry in self._entries.values()}
        code = new_code(self._random)
        while code in codes:
            code = new_code(self._random)
        return Pending(
            code=code,
            uid=result.uid,
            program=result.program,
            chain=result.chain,
            server=server,
            cause=cause.value,
            wants=(),
            first_ns=now_ns,
            last_ns=now_ns,
            count=0,
            expires_ns=now_ns + self._limits.ttl_ns,
            identity=b"",
            display=result.display,
            runs=runs,
        )

    def _wanted(self, wants: tuple[Want, ...], method: str, name: str) -> tuple[Want, ...]:
        for index, want in enumerate(wants):
            if want.method == method and want.name == name:
                counted = msgspec.structs.replace(want, count=want.count + 1)
                return (*wants[:index], counted, *wants[index + 1 :])
        cap = URI_CAP if ":" in name else NAME_CAP
        if len(wants) >= self._limits.wants or len(name) > cap or len(method) > NAME_CAP:
            return wants
        return (*wants, Want(method=method, name=name, count=1))

    def _make_room(self, uid: int) -> None:
        own = [key for key in self._entries if key.uid == uid]
        if own and (len(own) >= self._limits.per_uid or len(self._entries) >= self._limits.total):
            self._remove(own[0])
        elif len(self._entries) >= self._limits.total:
            self._remove(self._crowded())

    def _crowded(self) -> Key:
        """The oldest entry of the uid that has most: the total is full and the newcomer has none of its own."""
        counts: dict[int, int] = {}
        for key in self._entries:
            counts[key.uid] = counts.get(key.uid, 0) + 1
        most = max(counts, key=lambda uid: counts[uid])
        return next(key for key in self._entries if key.uid == most)

    def _remove(self, key: Key) -> None:
        pending = self._entries.pop(key)
        self._unsaved.discard(key)
        self._store.drop_pending(pending.code)


def _key(result: AttestationResult, server: str, cause: str, runs: str) -> Key:
    return Key(
        uid=result.uid,
        program=result.program,
        chain=result.chain,
        server=server,
        family=FAMILY.get(Cause(cause), cause),
        inline=result.inline,
        kind=result.kind.value,
        instance="" if runs in FIXED_CODE else result.instance,
    )
