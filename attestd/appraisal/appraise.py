"""Appraise evidence: facts against reference values and class table, in one pass.

1 Classes: what each link is, by verified identity.
2 Attribution: who is accountable, who launched it, whether code was passed inline.
3 Uid: the weaker one.
4 Level: the least cap of all reasons.
5 Names: digests, SPIFFE ID, login session, package, lineage, and the line for people.
Nothing here reads a clock or the system; the same evidence gives the same result.
"""

from __future__ import annotations

from attestd.appraisal.attribution import Attribution, attribute
from attestd.appraisal.classes import ClassTable
from attestd.appraisal.digests import Naming, chain_digest, code_known, instance, spiffe_id
from attestd.appraisal.levels import assess, level_of
from attestd.appraisal.membership import Membership, classify
from attestd.appraisal.model import AttestationResult, CallerKind, Launcher, LinkClass
from attestd.appraisal.references import References
from attestd.appraisal.render import launcher_name, line, title
from attestd.appraisal.uids import decide_uid
from attestd.appraisal.words import origin_of, short_name
from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Evidence, Link

__all__ = ["Naming", "appraise", "client_claim_mismatch"]

_SHORTEST_NAME = 3


def appraise(evidence: Evidence, table: ClassTable, references: References, naming: Naming) -> AttestationResult:
    """The attestation result of one caller. Raises EvidenceError(PEER_GONE) for evidence without any process."""
    if not evidence.chain:
        raise EvidenceError(Cause.PEER_GONE, "cannot appraise evidence without a process")
    # 1
    members = classify(evidence, table, references)
    # 2
    attribution = attribute(evidence, members)
    # 3
    uid, uid_reasons = decide_uid(evidence, attribution)
    # 4
    _, found = assess(evidence, members, attribution)
    reasons = {*found, *uid_reasons}
    level = level_of(reasons)
    # 5
    accountable = evidence.chain[attribution.accountable]
    program = attribution.programs[attribution.accountable]
    chain = _chain(evidence, members, attribution)
    return AttestationResult(
        kind=attribution.kind,
        accountable=attribution.accountable,
        classes=tuple(member.link_class for member in members),
        uid=uid,
        program=program,
        chain=chain,
        instance=instance(evidence, accountable),
        spiffe_id=spiffe_id(naming, uid=uid, program=program, chain=chain),
        level=level,
        recorded=all(link.recorded for link in evidence.chain[: attribution.accountable + 1]),
        reasons=tuple(sorted(reasons)),
        inline=attribution.inline,
        launchers=_launchers(evidence, members, attribution, table),
        login_session=_login_session(evidence, attribution),
        tty=accountable.tty or evidence.chain[0].tty,
        package=_package(accountable),
        lineage=_lineage(accountable),
        title=title(evidence, members, attribution, table),
        display=line(evidence, members, attribution, table, level),
        durable=attribution.kind is CallerKind.PROGRAM and _is_durable(accountable),
        terminal=_is_terminal(members, attribution),
    )


def client_claim_mismatch(result: AttestationResult, client_name: str) -> bool:
    """Whether the name in ``clientInfo`` is not that of the attested program. It decides nothing; people see it."""
    claim = _letters(client_name)
    if not claim:
        return False
    title = result.title.removeprefix("orphan ").strip('"')
    name, _, version = title.rpartition(" ")
    package = result.package.partition(":")[2].rpartition("@")[0]
    known = {title, name if version[:1].isdigit() else title, title.rpartition(".")[0], package}
    known.add(package.rpartition("/")[2])
    return not any(_alike(claim, _letters(text)) for text in known)


def _alike(one: str, other: str) -> bool:
    contained = min(len(one), len(other)) >= _SHORTEST_NAME and (one in other or other in one)
    return one == other or contained


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _chain(evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution) -> str:
    outermost = attribution.edge if attribution.edge is not None else attribution.last
    links = [
        (attribution.programs[index], evidence.chain[index].uids[0])
        for index in range(attribution.accountable, outermost + 1)
        if members[index].link_class is not LinkClass.RELAY
    ]
    return chain_digest(links, attribution.end)


def _launchers(
    evidence: Evidence, members: tuple[Membership, ...], attribution: Attribution, table: ClassTable
) -> tuple[Launcher, ...]:
    found = []
    for index in attribution.launchers:
        link, member = evidence.chain[index], members[index]
        program = attribution.programs[index] if code_known(link) else None
        named = launcher_name(link, member, table)
        digest = f" · sha256 {program[:8]}" if program is not None else ""
        found.append(Launcher(program=program, display=named + digest, build_step=member.build_step))
    if attribution.unknown_launcher is not None and all(launcher.program is not None for launcher in found):
        orphaned = attribution.unknown_launcher
        name = short_name(evidence.chain[orphaned], members[orphaned].link_class, members[orphaned].entry)
        found.append(Launcher(program=None, display=f"unknown, whoever started {name}"))
    return tuple(found)


def _login_session(evidence: Evidence, attribution: Attribution) -> str:
    """The first EDGE, or, where that is pid 1 or none was seen, the session leader of the accountable client."""
    if attribution.edge is not None and evidence.chain[attribution.edge].pid != 1:
        return instance(evidence, evidence.chain[attribution.edge]).rpartition("/")[0]
    session = evidence.chain[attribution.accountable].session
    leader = next((link for link in evidence.chain if link.pid == session), None)
    if leader is not None and leader.pid != 1:
        return instance(evidence, leader).rpartition("/")[0]
    return f"{evidence.boot_id}/session-{session}"


def _package(link: Link) -> str:
    origin = origin_of(link)
    if origin is None or not origin.verified or not code_known(link):
        return ""
    return f"{origin.kind}:{origin.name}@{origin.version}"


def _lineage(link: Link) -> str:
    """Kind, name and install root: for npm the package's own directory, for Python the directory of its distributions.

    A distribution's package and a verified signer are the same wherever their files lie.
    An unverified origin counts here, because lineage only ever leads to a question about an update.
    """
    origin = origin_of(link)
    if origin is None or not code_known(link):
        return ""
    file = link.script.file if link.script is not None else link.exe
    if file is None:
        return ""
    if origin.kind in ("dpkg", "rpm") or (origin.kind == "codesign" and origin.verified):
        return f"{origin.kind}:{origin.name} /"
    marker = f"/node_modules/{origin.name}/" if origin.kind == "npm" else "/site-packages/"
    before, found, _ = file.path.rpartition(marker)
    root = before + found.rstrip("/") if found else file.path.rpartition("/")[0] or "/"
    return f"{origin.kind}:{origin.name} {root}"


def _is_durable(link: Link) -> bool:
    return code_known(link) and (link.script is None or link.script.kind in ("script", "module"))


def _is_terminal(members: tuple[Membership, ...], attribution: Attribution) -> bool:
    entry = members[attribution.edge].entry if attribution.edge is not None else None
    return entry is not None and entry.terminal
