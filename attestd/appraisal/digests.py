r"""Program, chain and instance digests and SPIFFE IDs, byte for byte.

The texts are append-only: a line is never changed and never reused for something else. Anyone can recompute them with
``sha256sum``; ``tests/vectors/recompute.sh`` does.

    program = SHA-256 of   attestd program v1\n
                           exe <sha256 hex>\n                 or   exe unreadable\n
                           then, for interpreters only, exactly one of
                           script <sha256 hex>\n      a file
                           module <name> <sha256 hex>\n
                           inline <sha256 hex>\n      of the text
                           stdin\n                    code was read from standard input
                           none\n                     no code was named (a prompt)
                           unresolved\n               the code could not be told
    chain   = SHA-256 of   attestd chain v1\n
                           link <program hex> uid <real uid>\n   from the accountable client outwards to and including
                                                              the first EDGE; RELAY left out, equal neighbours once
                           end <why>\n                only where no EDGE ended it: broken limit namespace unreadable
The last three program lines cannot equal the first three, so a program whose code is unknown never has the digest of
one whose code is known. Many programs share such a digest: they are never durable, and levels.py refuses the unknown
ones outright.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

from attestd.errors import ConfigurationError
from attestd.evidence.model import Evidence, Link, Script

_HEX64 = re.compile(r"[0-9a-f]{64}")
_MODULE = re.compile(r"[A-Za-z0-9_.]+")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]{1,255}")
_DOTS = ("", ".", "..")
_SHORT = 40


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """Where SPIFFE IDs are issued. Raises ConfigurationError for anything that is not one segment."""

    trust_domain: str
    host_id: str

    def __post_init__(self) -> None:
        """Refuse what could not stand in an ID."""
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise ConfigurationError(
                f"cannot use the trust domain {self.trust_domain!r}, expected lower-case letters, digits, '.', '_', '-'"
            )
        _segment("host id", self.host_id)


def program_text(link: Link) -> str:
    """The text whose SHA-256 is the program digest."""
    sha256 = link.exe.sha256 if link.exe is not None else None
    exe = sha256 if sha256 is not None and _HEX64.fullmatch(sha256) else "unreadable"
    return f"attestd program v1\nexe {exe}\n{_code_line(link.script)}"


def program_digest(link: Link) -> str:
    """64 hex digits."""
    return _sha256(program_text(link))


def code_known(link: Link) -> bool:
    """Whether the digest stands for one certain program: neither unreadable nor stdin, unresolved or a prompt."""
    text = program_text(link)
    return "exe unreadable\n" not in text and not text.endswith(("\nstdin\n", "\nnone\n", "\nunresolved\n"))


def chain_text(links: Iterable[tuple[str, int]], end: str = "") -> str:
    """The text whose SHA-256 is the chain digest. ``links``: program digest and real uid, accountable client first."""
    lines: list[str] = []
    for program, uid in links:
        line = f"link {program} uid {uid}\n"
        if not lines or lines[-1] != line:
            lines.append(line)
    return "attestd chain v1\n" + "".join(lines) + (f"end {end}\n" if end else "")


def chain_digest(links: Iterable[tuple[str, int]], end: str = "") -> str:
    """64 hex digits."""
    return _sha256(chain_text(links, end))


def instance(evidence: Evidence, link: Link) -> str:
    """``<boot id>/<pidfs inode, or pid-start>/<image counter>``; the counter is the recorder's, 0 without it."""
    process = str(link.pidfs_ino) if link.pidfs_ino is not None else f"{link.pid}-{link.start_ticks}"
    return f"{evidence.boot_id}/{process}/0"


def spiffe_id(naming: Naming, *, uid: int, program: str, chain: str) -> str:
    """The ID of a workload that policy does not name."""
    return f"{_prefix(naming, uid)}/program/{program[:_SHORT]}/chain/{chain[:_SHORT]}"


def workload_id(naming: Naming, *, uid: int, workload: str) -> str:
    """The ID of a workload that policy names. Raises ConfigurationError for a name that is not one segment."""
    return f"{_prefix(naming, uid)}/workload/{_segment('workload name', workload)}"


def _prefix(naming: Naming, uid: int) -> str:
    return f"spiffe://{naming.trust_domain}/host/{naming.host_id}/uid/{uid}"


def _segment(what: str, text: str) -> str:
    if text in _DOTS or not _SEGMENT.fullmatch(text):
        raise ConfigurationError(f"cannot use the {what} {text!r}, expected letters, digits, '.', '_', '-' only")
    return text


def _code_line(script: Script | None) -> str:
    if script is None:
        return ""
    known = script.sha256 is not None and _HEX64.fullmatch(script.sha256) is not None
    if script.kind in ("script", "inline") and known:
        return f"{script.kind} {script.sha256}\n"
    if script.kind == "module" and known and _MODULE.fullmatch(script.name):
        return f"module {script.name} {script.sha256}\n"
    if script.kind in ("stdin", "none"):
        return f"{script.kind}\n"
    return "unresolved\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
