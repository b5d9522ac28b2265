"""What changed between the last approved identity and the one that asks now, in lines for a person.

Order of the lines: what the program is, who vouches for it, how it was launched, what it may do. Equal facts are left
out; "not verified" and "could not be read" are said, never left out.
"""

from __future__ import annotations

from attestd.grants.model import Grant, Identity

OBJECTS = (("tools", "tool"), ("resources", "resource"), ("prompts", "prompt"), ("server_requests", "server request"))


def difference(old: Grant | None, new: Grant) -> tuple[str, ...]:
    """Lines such as ``version: 2.1.327 -> 2.1.328``. Empty only if nothing differs."""
    if old is None:
        return ("no earlier approval of this program or an earlier version of it",)
    if old.identity is None or new.identity is None:
        return ("an earlier approval exists, but not who was approved then",)
    lines = [*_program(old.identity, new.identity), *_launch(old, new), *_objects(old, new)]
    if old.min_level != new.min_level:
        lines.append(f"minimum level: {old.min_level} -> {new.min_level}")
    return tuple(lines)


def _program(old: Identity, new: Identity) -> list[str]:
    lines: list[str] = []
    if old.program == new.program:
        lines.append("same program, byte for byte")
    else:
        lines.append(f"program: sha256 {old.program[:8]} -> {new.program[:8]}")
    if old.title != new.title:
        lines.append(f"title: {old.title} -> {new.title}")
    if old.package != new.package:
        lines.append(f"package: {old.package or 'none verified'} -> {new.package or 'none verified'}")
    if old.lineage != new.lineage:
        lines.append(f"installed as: {old.lineage or 'unknown'} -> {new.lineage or 'unknown'}")
    elif old.program != new.program and not new.lineage:
        lines.append("only the title is the same: nothing shows that both come from one installation")
    if old.level != new.level:
        lines.append(f"assurance level: {old.level} -> {new.level}")
    return lines


def _launch(old: Grant, new: Grant) -> list[str]:
    before = set(old.identity.launchers if old.identity else ())
    now = set(new.identity.launchers if new.identity else ())
    lines = [f"launched by, new: {display}" for display in sorted(now - before)]
    lines += [f"launched by, no longer: {display}" for display in sorted(before - now)]
    if old.subject.inline != new.subject.inline:
        lines.append("through inline code, new" if new.subject.inline else "through inline code, no longer")
    before, now = set(old.subject.search_paths), set(new.subject.search_paths)
    lines += [f"started with, new: {path}" for path in sorted(now - before)]
    if old.identity and new.identity and not lines and old.identity.chain != new.identity.chain:
        lines.append(f"launch chain: {old.identity.chain[:8]} -> {new.identity.chain[:8]}")
    return lines


def _objects(old: Grant, new: Grant) -> list[str]:
    lines: list[str] = []
    for field, word in OBJECTS:
        before, now = set(getattr(old.object, field)), set(getattr(new.object, field))
        lines += [f"{word}, new: {name}" for name in sorted(now - before)]
        lines += [f"{word}, no longer: {name}" for name in sorted(before - now)]
    return lines
