"""How sure the identity is: level 0 to 4, and every reason that keeps it from being higher (docs/reference/levels.md).

The level is the least cap of all reasons that apply (``caps`` has the table), so adding a fact can only lower it.
Facts of the *path* count: the peer, the accountable client and everything between. What stands above is the launch
context and counts as launchers. Missing is not false: a fact that could not be read counts as the worse one.
"""

from __future__ import annotations

from collections.abc import Iterator

from attestd.appraisal.attribution import Attribution
from attestd.appraisal.caps import reason
from attestd.appraisal.membership import Membership, readable, sandboxed
from attestd.appraisal.model import CallerKind, LinkClass, Reason
from attestd.appraisal.posture import caps as posture_caps
from attestd.appraisal.words import escape, short_name
from attestd.evidence.model import Evidence, FileFacts, Link, Origin
from attestd.evidence.tcp import TcpPeer

_MEMBERS = (LinkClass.RELAY, LinkClass.PASS, LinkClass.EDGE)
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "virtiofs"})
_HIGHEST = 4


def assess(
    evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution
) -> tuple[int, tuple[Reason, ...]]:
    """The level and its reasons, sorted by cap, then code, then detail. Reasons about uids are added by the caller."""
    found = {
        *_about_peer(evidence),
        *_about_chain(evidence, members, attribution),
        *path_reasons(evidence, members, attribution.accountable),
        *_about_image(evidence, members, attribution.accountable),
        *_about_input(evidence, members, attribution),
    }
    return level_of(found), tuple(sorted(found))


def level_of(reasons: set[Reason]) -> int:
    """The least cap."""
    return min((found.cap for found in reasons), default=_HIGHEST)


def path_reasons(evidence: Evidence, members: tuple[Membership, ...], upto: int) -> Iterator[Reason]:
    """What is wrong with the processes from the peer to ``upto``, each link by itself."""
    for index in range(upto + 1):
        link, member = evidence.chain[index], members[index]
        name = short_name(link, member.link_class, member.entry)
        if link.tracer_pid != 0:
            yield reason("traced", name)
        if link.dead:
            yield reason("dead", name)
        if link.forged:
            yield reason("image-forged", f"shows {escape(link.forged)}")
        if link.environ_cut:
            yield reason("environ-cut", name)
        if member.link_class is LinkClass.UNREADABLE:
            yield reason("unreadable", name)
        if member.relay_objection:
            yield reason("relay-refused", member.relay_objection)
        yield from _about_namespaces(evidence, link, name)
        known = member.link_class in _MEMBERS
        for cap, entry in posture_caps(link, member=known):
            if cap < _HIGHEST:
                yield reason("preload" if cap == 0 else "search-path", escape(entry))


def _about_peer(evidence: Evidence) -> Iterator[Reason]:
    source = evidence.peer.source
    if source == "pid":
        yield reason("inspected")
    elif isinstance(evidence.tcp, TcpPeer):
        yield from _about_tcp(evidence.tcp)
    elif source not in ("peerpidfd", "proved"):
        yield reason("pid-only")


def _about_tcp(tcp: TcpPeer) -> Iterator[Reason]:
    """Missing is not false: what was not looked for counts as found."""
    yield reason("tcp-writer")
    if tcp.shared is not False:
        yield reason("tcp-shared")
    if tcp.exec_changed:
        yield reason("tcp-exec")
    elif tcp.exec_changed is None:
        yield reason("tcp-exec-unknown")


def _about_namespaces(evidence: Evidence, link: Link, name: str) -> Iterator[Reason]:
    if link.namespaces.ours_user is not True:
        yield reason("foreign-user-namespace", name)
    if link.namespaces.ours_pid is not True:
        yield reason("foreign-pid-namespace", name)
    if sandboxed(evidence, link):
        yield reason("foreign-mount-namespace", name)


def _about_chain(evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution) -> Iterator[Reason]:
    if attribution.broken:
        yield reason(attribution.broken)
    for index in attribution.launchers:
        member = members[index]
        name = short_name(evidence.chain[index], member.link_class, member.entry)
        yield reason("launcher", f"{name} (build step)" if member.build_step else name)
    if attribution.unknown_launcher is not None:
        yield reason("launcher-unknown")


def _about_image(evidence: Evidence, members: tuple[Membership, ...], accountable: int) -> Iterator[Reason]:
    path = evidence.chain[: accountable + 1]
    claimed = next((index for index, link in enumerate(path) if not link.recorded and not link.forged), None)
    if evidence.exe_forgeable and claimed is not None:
        yield reason("image-claimed", _why_claimed(evidence, members, claimed))
    relay = members[0].link_class is LinkClass.RELAY
    if relay and _any_writable(path[0]):
        yield reason("relay-writable")
    for index, link in enumerate(path):
        if members[index].link_class not in _MEMBERS or index == accountable:
            yield from _about_files(link)
    yield reason("no-kernel-signature")


def _why_claimed(evidence: Evidence, members: tuple[Membership, ...], index: int) -> str:
    """Of the first such link; without a recorder, why there is none."""
    link, member = evidence.chain[index], members[index]
    if not link.unrecorded:
        return escape(evidence.recorder_reason)
    return f"{short_name(link, member.link_class, member.entry)}: {escape(link.unrecorded)}"


def _about_files(link: Link) -> Iterator[Reason]:
    if not readable(link) or link.exe is None:
        return
    yield from _about_file(link.exe, "exe-writable")
    script = link.script
    if script is None:
        if not _vouched(link.exe, link.origin):
            yield reason("origin-unverified", "executable")
        return
    if script.kind == "inline" and script.sha256 is not None:
        yield reason("inline-program", escape(script.text, 40))
    elif script.kind == "none":
        yield reason("bare-interpreter")
    elif script.kind not in ("script", "module") or script.sha256 is None or script.file is None:
        yield reason("script-unknown", escape(script.kind))
    else:
        yield from _about_file(script.file, "script-writable")
        if script.younger_than_process:
            yield reason("script-younger")
        if not _vouched(script.file, script.origin):
            yield reason("origin-unverified", "script")
    if not _vouched(link.exe, link.origin):
        yield reason("origin-unverified", "interpreter")


def _about_file(file: FileFacts, writable: str) -> Iterator[Reason]:
    if file.memfd:
        yield reason("memfd")
    if file.writable:
        yield reason(writable)
    if file.deleted:
        yield reason("exe-deleted")
    if file.fs.startswith("fuse"):
        yield reason("exe-fuse", escape(file.fs))
    if file.fs in _NETWORK:
        yield reason("exe-network", escape(file.fs))


def _vouched(file: FileFacts, origin: Origin | None) -> bool:
    return origin is not None and origin.verified and file.owner_uid == 0 and not file.writable


def _any_writable(link: Link) -> bool:
    script_file = link.script.file if link.script is not None else None
    return (link.exe is None or link.exe.writable) or (script_file is None or script_file.writable)


def _about_input(evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution) -> Iterator[Reason]:
    """Only through a relay: there the bytes come from whoever holds its standard input."""
    if members[0].link_class is not LinkClass.RELAY:
        return
    holders = evidence.input
    if holders is None:
        yield reason("input-unknown", "not examined")
        return
    if holders.kind == "tty":
        # A terminal has no writers to list: whoever holds its other end types. That is a person, or it is not known.
        if attribution.kind is not CallerKind.INTERACTIVE:
            yield reason("input-unknown", "a terminal")
        return
    ours = {link.pid for link in evidence.chain[: attribution.accountable + 1]}
    foreign = sorted(set(holders.pids) - ours)
    if foreign:
        yield reason("input-shared", "pid " + ", ".join(str(pid) for pid in foreign))
    elif holders.kind in ("pipe", "socket") and not ours.intersection(holders.pids):
        yield reason("input-unheld")
    if holders.kind == "file":
        yield reason("input-file")
    elif holders.kind not in ("pipe", "socket", "none"):
        yield reason("input-unknown", escape(holders.kind))
    if not holders.complete:
        yield reason("input-unknown", "some processes could not be looked at")
