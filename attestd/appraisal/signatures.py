"""macOS: what the kernel's word on a signature does to the level (docs/macos.md has the table).

A signature *vouches* where the collector found Apple's chain behind it (``Origin`` of kind ``codesign``, verified) and
the kernel still calls the image valid and undebugged. Then it says more than a package does: it is about the image
that runs, not about a file, so that it does not matter who can write the file. Only the executable is meant: scripts
and other files that a program reads are none of its pages.

Level 4 takes all of: every page enforced (HARD or KILL), the hardened runtime, library validation. What is missing of
it is named. An image without a signature's facts is not from macOS, or nothing is known of it: nothing is granted.
"""

from __future__ import annotations

from attestd.evidence.model import Link

CS_VALID = 0x1
CS_GET_TASK_ALLOW = 0x4
CS_FORCED_LV = 0x10
CS_HARD = 0x100
CS_KILL = 0x200
CS_REQUIRE_LV = 0x2000
CS_RUNTIME = 0x10000
CS_DEBUGGED = 0x10000000
CS_SIGNED = 0x20000000


def objections(link: Link) -> tuple[str, ...]:
    """Codes of the reasons against any link of the call, whoever signed it."""
    if link.signature is None:
        return ()
    status = link.signature.status
    table = (
        (status & CS_DEBUGGED, "debugged"),
        (status & CS_SIGNED and not status & CS_VALID, "signature-invalid"),
        (status & CS_GET_TASK_ALLOW, "debuggable"),
    )
    return tuple(code for holds, code in table if holds)


def vouches(link: Link) -> bool:
    """Whether a verified signer stands behind the image that runs."""
    if link.signature is None or link.origin is None or link.origin.kind != "codesign":
        return False
    status = link.signature.status
    return link.origin.verified and bool(status & CS_VALID) and not status & CS_DEBUGGED


def weaknesses(link: Link) -> tuple[str, ...]:
    """What keeps a signature that vouches from level 4."""
    status = link.signature.status if link.signature is not None else 0
    table = (
        (status & (CS_HARD | CS_KILL), "pages not enforced"),
        (status & CS_RUNTIME, "no hardened runtime"),
        (status & (CS_REQUIRE_LV | CS_FORCED_LV), "no library validation"),
    )
    return tuple(text for holds, text in table if not holds)
