"""Approval codes: eight characters of an alphabet of 31 without look-alikes, shown as ``XXXX-XXXX``.

31**8 is 8.5e11, so that guessing against a few dozen live codes is hopeless even without the lock-out of
``pending.Guesses``. Case and dashes do not count when a code is typed. Codes are compared in constant time.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from attestd.errors import NotPermittedError

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
LENGTH = 8
UNBIASED = 256 - 256 % len(ALPHABET)
"""Random bytes at or above this are thrown away, so that every letter is equally likely."""
TRIES = 10
LOCK_NS = 60 * 1_000_000_000
APPROVERS = 1024

RandomBytes = Callable[[int], bytes]
"""``secrets.token_bytes`` or its like: n bytes nobody can predict."""


def new_code(random_bytes: RandomBytes) -> str:
    """A fresh code in its shown form."""
    letters: list[str] = []
    while len(letters) < LENGTH:
        letters += [ALPHABET[byte % len(ALPHABET)] for byte in random_bytes(LENGTH) if byte < UNBIASED]
    word = "".join(letters[:LENGTH])
    return f"{word[:4]}-{word[4:]}"


def normalise(typed: str) -> str:
    """What a person typed, in the shown form if it can be a code at all, else the empty string."""
    word = typed.strip().replace("-", "").upper()
    if len(word) != LENGTH or any(letter not in ALPHABET for letter in word):
        return ""
    return f"{word[:4]}-{word[4:]}"


def same(left: str, right: str) -> bool:
    """Constant-time comparison of two codes."""
    return hmac.compare_digest(left.encode(), right.encode())


class Guesses:
    """Counts wrong codes per approver; after ``TRIES`` of them that approver must wait for ``LOCK_NS``."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, int]] = {}

    def admit(self, approver: str, now_ns: int) -> None:
        """Let a try through. Raises NotPermittedError while the approver is locked out."""
        wrong, since = self._wrong.get(approver, (0, now_ns))
        if wrong < TRIES:
            return
        if 0 <= now_ns - since < LOCK_NS:
            raise NotPermittedError(
                f"cannot take another code: {wrong} wrong codes in a row",
                hint=f"wait {(LOCK_NS - (now_ns - since)) // 1_000_000_000 + 1} s, then look at: attestctl pending",
            )
        del self._wrong[approver]

    def wrong(self, approver: str, now_ns: int) -> None:
        """Count one wrong code."""
        while len(self._wrong) >= APPROVERS and approver not in self._wrong:
            del self._wrong[next(iter(self._wrong))]
        self._wrong[approver] = (self._wrong.get(approver, (0, 0))[0] + 1, now_ns)

    def right(self, approver: str) -> None:
        """Forget what the approver got wrong."""
        self._wrong.pop(approver, None)
