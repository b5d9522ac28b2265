"""What a link is: RELAY, PASS, EDGE, HOST, APP or UNREADABLE (rules 4 and 8 of ``attribution``).

Membership is earned by verified identity and lost by anything that lets other code into the process:
- a file the caller can write, a deleted or in-memory image, an origin that nobody verified;
- a preload, a debugger, a mount namespace that is not that of the top of the chain (its libraries may be others);
- for a shell: a script. Shell and script together are the program.
What loses its membership is an ordinary program and is accountable for itself.
Pid 1 of our namespace is EDGE by position. So is a process that is wholly root's and that we cannot read, if
everything below it is a user's and nothing above it is: there the user's processes end. A root process *between* two
of a user's processes (sudo, pkexec) is no such end and stays UNREADABLE, as does one that has exited or whose
executable is forged.
"""

from __future__ import annotations

import msgspec

from attestd.appraisal.classes import ClassTable, Entry
from attestd.appraisal.model import LinkClass
from attestd.appraisal.posture import loads_code
from attestd.appraisal.references import References, named, objection
from attestd.evidence.model import Evidence, FileFacts, Link, Origin

_QUIET_OPTIONS = frozenset({"-y", "--yes", "-q", "--quiet", "-s", "--silent"})


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """The class of one link, and the entry of the table that says so."""

    link_class: LinkClass
    entry: Entry | None = None
    relay_objection: str = ""
    """The digests are the shim's, but this is not the shim: why."""

    @property
    def build_step(self) -> bool:
        """Whether the table calls this a build step."""
        return self.entry is not None and self.entry.build_step


def readable(link: Link) -> bool:
    """Whether the link has a code identity at all."""
    return link.exe is not None and link.exe.sha256 is not None


def sandboxed(evidence: Evidence, link: Link) -> bool:
    """Whether the link's mount namespace is neither the daemon's nor that of the top of the chain.

    A daemon that runs as a hardened service has a mount namespace of its own, so "not ours" alone says nothing.
    """
    if link.namespaces.ours_mnt is True:
        return False
    top = evidence.chain[-1].namespaces.mnt
    return top is None or link.namespaces.mnt != top


def classify(evidence: Evidence, table: ClassTable, references: References) -> tuple[Membership, ...]:
    """One membership for each link of the chain."""
    return tuple(_classify_one(evidence, index, table, references) for index in range(len(evidence.chain)))


def _classify_one(evidence: Evidence, index: int, table: ClassTable, references: References) -> Membership:
    link = evidence.chain[index]
    if link.pid == 1:
        return Membership(link_class=LinkClass.EDGE)
    if not readable(link):
        boundary = _is_root_boundary(evidence.chain, index)
        return Membership(link_class=LinkClass.EDGE if boundary else LinkClass.UNREADABLE)
    apart = sandboxed(evidence, link)
    reference = named(link, references.relays)
    if reference is None:
        return _classify_by_table(link, table, apart=apart)
    why_not = objection(link, reference, user_mode=references.user_mode, sandboxed=apart)
    if index > 0 and not why_not:
        why_not = "the shim starts nothing, so it cannot be an ancestor"
    return Membership(link_class=LinkClass.HOST if why_not else LinkClass.RELAY, relay_objection=why_not)


def _classify_by_table(link: Link, table: ClassTable, *, apart: bool) -> Membership:
    ordinary = LinkClass.APP if link.script is None else LinkClass.HOST
    likely = table.likely(_package(link.origin), _package(link.script.origin if link.script is not None else None))
    entry = next((entry for entry in likely if _matches(entry, link)), None)
    if entry is None or entry.link_class is LinkClass.APP:
        return Membership(link_class=ordinary, entry=entry)
    if apart or link.tracer_pid != 0 or link.dead or loads_code(link, member=True):
        return Membership(link_class=ordinary)
    return Membership(link_class=entry.link_class, entry=entry)


def _package(origin: Origin | None) -> str:
    return "" if origin is None else f"{origin.kind}:{origin.name}"


def _is_root_boundary(chain: tuple[Link, ...], index: int) -> bool:
    if index == 0 or any(chain[index].uids) or chain[index].dead or chain[index].forged:
        return False
    below_is_root = 0 in chain[index - 1].uids
    above_is_user = any(link.uids != (0, 0, 0, 0) for link in chain[index + 1 :])
    return not below_is_root and not above_is_user


def _matches(entry: Entry, link: Link) -> bool:
    return (
        _matches_file(_selector(entry), link.exe, link.origin)
        and _matches_script(entry, link)
        and (not entry.commands or _command(entry, link) in entry.commands)
    )


class _Selector(msgspec.Struct, frozen=True, kw_only=True):
    origin: str
    files: tuple[str, ...]
    sha256: str
    member: bool
    claimed: bool


def _selector(entry: Entry) -> _Selector:
    member = entry.link_class is not LinkClass.APP
    return _Selector(origin=entry.origin, files=entry.files, sha256=entry.sha256, member=member, claimed=entry.claimed)


def _matches_file(selector: _Selector, file: FileFacts | None, seen: Origin | None) -> bool:
    if not selector.origin and not selector.sha256:
        return True
    if file is None or file.sha256 is None or (selector.member and (file.writable or file.deleted or file.memfd)):
        return False
    return (not selector.sha256 or file.sha256 == selector.sha256) and _matches_origin(selector, file, seen)


def _matches_origin(selector: _Selector, file: FileFacts, seen: Origin | None) -> bool:
    if not selector.origin:
        return True
    if seen is None or _package(seen) != selector.origin:
        return False
    return (seen.verified or selector.claimed) and (not selector.files or file.path in selector.files)


def _matches_script(entry: Entry, link: Link) -> bool:
    script, exe = link.script, _selector(entry)
    if entry.wants_script:
        if script is None or script.kind not in ("script", "module") or (exe.member and script.younger_than_process):
            return False
        wanted = msgspec.structs.replace(
            exe, origin=entry.script_origin, files=entry.script_files, sha256=entry.script_sha256
        )
        return _matches_file(wanted, script.file, script.origin)
    if script is None or not exe.member:
        return not entry.shell
    # An interpreter that is no shell is never a member by its executable alone: its script is the program.
    return script.interpreter == "shell" and script.kind in ("none", "inline", "stdin")


def _command(entry: Entry, link: Link) -> str:
    """The command word, such as ``exec`` of ``npm exec``; empty where it cannot be told for certain.

    npm rewrites its title, so that all words may stand in one argument. An option that might take the next word as its
    value makes the answer uncertain. argv[0] in front of a script is anybody's choice and is not read.
    """
    words = [word for word in link.argv if word]
    if len(words) == 1:
        words = words[0].split()
    elif entry.wants_script:
        words = words[1:]
    if not words or _stem(words[0]) != entry.name:
        return ""
    for word in words[1:]:
        if not word.startswith("-"):
            return word
        if word not in _QUIET_OPTIONS and not (word.startswith("--") and "=" in word):
            return ""
    return ""


def _stem(word: str) -> str:
    name = word.rpartition("/")[2]
    return name.removesuffix(".js").removesuffix("-cli")
