"""The signature over a running image, as the kernel has it, and whom it names.

Rules: asked with pid and pid version, so that an answer is about one image. Identifier and team come from the code
directory and are the signer's own words; they are believed only where the kernel's validation category says that
Apple's chain stands behind them. Such a name is ``TEAM/identifier``, or the bare identifier for Apple's own programs;
everything else is called ``unverified/identifier``, so that it can never equal a verified name. An image that is
unsigned, has turned invalid or was debugged vouches for nothing.
"""

from __future__ import annotations

import errno
import re

from attestd.evidence.model import CodeSignature, Origin
from attestd.kernel.darwin import abi
from attestd.kernel.darwin.libsystem import System

CS_VALID = 0x1
CS_ADHOC = 0x2
CS_PLATFORM_BINARY = 0x04000000
CS_DEBUGGED = 0x10000000
PLATFORM = 1
SIGNERS = {PLATFORM: "Apple", 2: "TestFlight", 4: "App Store", 6: "Developer ID"}
"""Validation categories behind which Apple's chain stands. Enterprise and development signatures are not among them."""
_ABSENT = frozenset({errno.EINVAL, errno.ENOENT, errno.EBADF, 85})
"""85 is EBADEXEC, which Python names on macOS only: no signature."""
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_TEAM = re.compile(r"[A-Z0-9]{10}")
_TEXT_BYTES = 1024


def read_signature(system: System, pid: int, version: int) -> CodeSignature:
    """The signature of one image. Raises ProcessLookupError: that image has gone; OSError: it may not be asked."""
    status = int.from_bytes(system.signed(pid, version, abi.CS_OPS_STATUS, 4), "little")
    cdhash = _optional(system, pid, version, abi.CS_OPS_CDHASH, abi.CDHASH_BYTES)
    category = _optional(system, pid, version, abi.CS_OPS_VALIDATION_CATEGORY, 4)
    return CodeSignature(
        status=status,
        cdhash=cdhash.hex() if cdhash is not None else "",
        identity=_text(_optional(system, pid, version, abi.CS_OPS_IDENTITY, _TEXT_BYTES)),
        team=_text(_optional(system, pid, version, abi.CS_OPS_TEAMID, _TEXT_BYTES)),
        category=int.from_bytes(category, "little") if category is not None else None,
    )


def origin(signature: CodeSignature) -> Origin | None:
    """Who vouches for the image; None: it is unsigned."""
    if not signature.cdhash:
        return None
    identity = signature.identity if _IDENTITY.fullmatch(signature.identity) else "unnamed"
    objection = _objection(signature)
    if objection:
        return Origin(kind="codesign", name=f"unverified/{identity}", version="", verified=False, detail=objection)
    signer = _signer(signature)
    name = identity if signer == SIGNERS[PLATFORM] else f"{signature.team}/{identity}"
    return Origin(kind="codesign", name=name, version="", verified=True, detail=signer)


def _objection(signature: CodeSignature) -> str:
    signer = _signer(signature)
    apple = signer == SIGNERS[PLATFORM]
    objections = (
        (not signature.status & CS_VALID, "the signature is not valid any more"),
        (bool(signature.status & CS_DEBUGGED), "the process is or was debugged"),
        (bool(signature.status & CS_ADHOC) and not apple, "signed ad hoc, by nobody"),
        (not _IDENTITY.fullmatch(signature.identity), "the signing identifier is missing or malformed"),
        (not signer, "the kernel does not say that Apple's chain stands behind the signature"),
        (not apple and not _TEAM.fullmatch(signature.team), "there is no team identifier"),
    )
    return next((text for failed, text in objections if failed), "")


def _signer(signature: CodeSignature) -> str:
    if signature.category is None:
        return SIGNERS[PLATFORM] if signature.status & CS_PLATFORM_BINARY else ""
    return SIGNERS.get(signature.category, "")


def _optional(system: System, pid: int, version: int, operation: int, size: int) -> bytes | None:
    try:
        return system.signed(pid, version, operation, size)
    except ProcessLookupError:
        raise
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _text(blob: bytes | None) -> str:
    """The string behind the eight bytes of a blob's head, whose second word is the length of both."""
    if blob is None:
        return ""
    length = int.from_bytes(blob[4:8], "big")
    return blob[8:length].rstrip(b"\0").decode("utf-8", "replace") if 8 < length <= len(blob) else ""
