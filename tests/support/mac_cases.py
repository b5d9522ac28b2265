"""The cases of macOS behind the vectors: one for each row of the levels' macOS column, and what lowers them."""

from __future__ import annotations

from attestd.evidence.model import Evidence
from tests.support.evidence import (
    HOME,
    SIGNED,
    evil,
    inline_of,
    mac_desk,
    mac_evidence_of,
    mac_program,
    mac_zsh,
    origin_of,
    script_of,
)

CLAUDE = f"{HOME}/.local/share/claude/versions/2.1.328"
IDENTITY = "Q6L2SF6YDW/com.anthropic.claude-code"
_NODE = {"signer": "Developer ID", "argv": ("node", f"{HOME}/client.js")}


def _claude(**facts: object) -> tuple[object, ...]:
    return (mac_program(CLAUDE, IDENTITY, **({"signer": "Developer ID"} | facts)), mac_zsh(), *mac_desk())


def _of(*links: object, **facts: object) -> Evidence:
    return mac_evidence_of(*links, **facts)


def cases() -> tuple[tuple[str, str, Evidence], ...]:
    """Name, sentence, evidence."""
    script = script_of("node", f"{HOME}/client.js", origin_of("npm:client", verified=False))
    return (
        (
            "mac-hardened",
            "A hardened program of a verified signer, in its user's home: the kernel enforces it.",
            _of(*_claude()),
        ),
        (
            "mac-weakened",
            "The same without library validation.",
            _of(*_claude(status=SIGNED & ~0x2000)),
        ),
        (
            "mac-ad-hoc",
            "Exact bytes that nobody signed for, root-owned.",
            _of(mac_program("/opt/tool/agent", "agent", status=0x20000003), mac_zsh(), *mac_desk()),
        ),
        (
            "mac-ad-hoc-home",
            "Exact bytes that nobody signed for, where the caller can write.",
            _of(mac_program(f"{HOME}/agent", "agent", status=0x20000003), mac_zsh(), *mac_desk()),
        ),
        ("mac-debugged", "A debugger was attached once.", _of(*_claude(status=SIGNED | 0x10000000))),
        ("mac-invalid", "A page was changed in memory.", _of(*_claude(status=SIGNED & ~1))),
        ("mac-debuggable", "A development build that lets others control it.", _of(*_claude(status=SIGNED | 4))),
        (
            "mac-script",
            "A signed interpreter with a script in the home directory.",
            _of(mac_program("/usr/local/bin/node", "HX7739G8FX/node", script=script, **_NODE), mac_zsh(), *mac_desk()),
        ),
        (
            "mac-false-zsh",
            "A program that calls itself com.apple.zsh without Apple's signature is no shell of ours.",
            _of(
                mac_program(CLAUDE, IDENTITY, signer="Developer ID"),
                mac_program(
                    "/bin/zsh",
                    "com.apple.zsh",
                    status=0x20000003,
                    script=inline_of("shell", "claude -p"),
                    argv=("zsh",),
                ),
                *mac_desk(),
            ),
        ),
        (
            "mac-launcher",
            "Something else started the hardened program.",
            _of(
                mac_program(CLAUDE, IDENTITY, signer="Developer ID"),
                evil(signature=None, namespaces=mac_zsh().namespaces),
                mac_zsh(),
                *mac_desk(),
            ),
        ),
    )
