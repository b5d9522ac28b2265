"""The fixed line, the same in prompts, logs and ``explain``.

``Claude Code 2.1.328 · npm @anthropic-ai/claude-code · sha256 ab12cd34 · L1
| via zsh, attestd-connect | in ghostty | tty pts/3``

The digest is the first eight digits of the program digest. Parts that do not apply are left out; ``launched by``
stands after ``via`` where the launch context has launchers, and ``inline`` where inline code was passed through.
"""

from __future__ import annotations

from attestd.appraisal.attribution import Attribution
from attestd.appraisal.classes import ClassTable
from attestd.appraisal.membership import Membership, readable
from attestd.appraisal.model import CallerKind, LinkClass
from attestd.appraisal.words import escape, label, short_name
from attestd.evidence.model import Evidence, Link

_PREFIX = {CallerKind.PROGRAM: "", CallerKind.INTERACTIVE: "person at ", CallerKind.ORPHAN: "orphan "}


def title(evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution, table: ClassTable) -> str:
    """Short name of the caller: ``Claude Code 2.1.328``, ``person at bash``, ``orphan client.py``."""
    index = attribution.accountable
    if members[index].link_class in (LinkClass.PASS, LinkClass.EDGE, LinkClass.RELAY):
        name = short_name(evidence.chain[index], members[index].link_class, members[index].entry)
    else:
        name = label(evidence.chain[index], table).title
    return _PREFIX[attribution.kind] + name


def line(
    evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution, table: ClassTable, level: int
) -> str:
    """The whole line."""
    index = attribution.accountable
    names = [
        short_name(link, member.link_class, member.entry) for link, member in zip(evidence.chain, members, strict=True)
    ]
    head = [title(evidence, members, attribution, table)]
    origin = label(evidence.chain[index], table).origin
    if origin:
        head.append(origin)
    head += [f"sha256 {attribution.programs[index][:8]}", f"L{level}"]
    parts = [" · ".join(head)]
    via = _between(members, names, index)
    if via:
        parts.append("via " + ", ".join(via))
    if attribution.inline:
        parts.append("inline")
    if attribution.launchers:
        parts.append("launched by " + ", ".join(_launcher_names(evidence, members, attribution, table)))
    if attribution.edge is not None and attribution.edge != index:
        parts.append(f"in {names[attribution.edge]}")
    tty = evidence.chain[index].tty or evidence.chain[0].tty
    if tty:
        parts.append(f"tty {escape(tty, 32)}")
    return " | ".join(parts)


def launcher_name(link: Link, member: Membership, table: ClassTable) -> str:
    """What a launcher is called: by the table, else by its title; build steps are marked."""
    if member.entry is not None and member.entry.name:
        named = escape(member.entry.name)
    elif readable(link):
        named = label(link, table).title
    else:
        named = short_name(link, member.link_class, member.entry)
    return f"{named} (build step)" if member.build_step else named


def _launcher_names(
    evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution, table: ClassTable
) -> list[str]:
    return [launcher_name(evidence.chain[i], members[i], table) for i in attribution.launchers]


def _between(members: tuple[Membership, ...], names: list[str], accountable: int) -> list[str]:
    """Links below the accountable client, outermost first; helpers of the same code are not repeated."""
    shown = (LinkClass.RELAY, LinkClass.PASS)
    return [names[i] for i in range(accountable - 1, -1, -1) if members[i].link_class in shown]
