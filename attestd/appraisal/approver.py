"""Who may approve. It starts at refused; the first rule that holds answers.

root: every uid of the peer is 0, in our own user and pid namespace, and no debugger is attached. What root was asked to
do by others cannot be seen: an agent that may use sudo without a password may approve.

approver: the peer is a program that the configuration names by digest, or our attestctl under such a program with only
launchers between. What started the named program is not asked: it is meant for automation.

clean-chain, in user mode: the peer is our attestctl by reference values; above it stand only launchers without
inline code or script, with at least one shell at its prompt; then a verified terminal program; above that only
launchers and edges. One uid, one controlling terminal, every parent known, no preload, no search path, no debugger.
This proves which programs stand there, not who types: what can type into that terminal (a multiplexer's remote
control) can approve.

password, on a system installation: a clean chain is not enough there, and nothing else is asked without one. The
person's password must follow (polkit asks for it), so that what can type into a terminal cannot approve either.

The level does not count here: in user mode it is at most 1 by construction. What level 0 stands for is asked of each
link.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from attestd.appraisal.digests import code_known, program_digest
from attestd.appraisal.membership import sandboxed
from attestd.appraisal.model import AttestationResult, LinkClass
from attestd.appraisal.posture import HARMLESS, caps
from attestd.appraisal.references import References, named, objection
from attestd.appraisal.words import escape, short_name
from attestd.evidence.model import Evidence, Link

_ROOT = (0, 0, 0, 0)


class How(StrEnum):
    """By what right."""

    ROOT = "root"
    APPROVER = "approver"
    CLEAN_CHAIN = "clean-chain"
    PASSWORD = "password"  # noqa: S105 - not one, but that one must follow
    REFUSED = "refused"


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """May this caller approve?"""

    how: How
    reason: str = ""
    """One clause for a person; set exactly where it is not allowed."""

    @property
    def allowed(self) -> bool:
        """Whether any rule held, with nothing to follow."""
        return self.how in {How.ROOT, How.APPROVER, How.CLEAN_CHAIN}

    @property
    def asks(self) -> bool:
        """Whether the person's password would make it so."""
        return self.how is How.PASSWORD


def may_approve(
    evidence: Evidence, result: AttestationResult, references: References, approvers: frozenset[str]
) -> Approval:
    """Whether the caller of the control socket may approve. ``result`` is the appraisal of this very evidence.

    ``approvers``: program digests (64 hex) of the configuration.
    """
    peer = evidence.chain[0]
    unsound = _unsound_peer(evidence) or _unsound(evidence, peer)
    if unsound:
        return _refused(unsound)
    if evidence.peer.uid == 0 and peer.uids == _ROOT:
        return Approval(how=How.ROOT)
    if _under_approver(evidence, result, references, approvers):
        return Approval(how=How.APPROVER)
    unclean = _unclean(evidence, result, references)
    if unclean:
        return _refused(unclean)
    if references.user_mode:
        return Approval(how=How.CLEAN_CHAIN)
    return Approval(how=How.PASSWORD, reason="the password of its user was not given")


def _refused(why: str) -> Approval:
    return Approval(how=How.REFUSED, reason=why)


def _unsound_peer(evidence: Evidence) -> str:
    if evidence.peer.source not in ("peerpidfd", "proved", "token"):
        return "the kernel named the caller by number only"
    return ""


def _unsound(evidence: Evidence, link: Link) -> str:
    """What makes a process one that anybody may drive."""
    name = _name(link)
    if link.namespaces.ours_user is not True or link.namespaces.ours_pid is not True:
        return f"{name} is in a foreign namespace"
    if link.tracer_pid != 0:
        return f"a debugger is attached to {name}"
    if link.dead:
        return f"{name} has exited"
    return f"{name} has a mount namespace of its own" if sandboxed(evidence, link) else ""


def _under_approver(
    evidence: Evidence, result: AttestationResult, references: References, approvers: frozenset[str]
) -> bool:
    for index, link in enumerate(evidence.chain):
        if _unsound(evidence, link):
            return False
        if program_digest(link) in approvers:
            return _names_a_program(link)
        if link.reparented is not False:
            return False
        if index == 0 and _not_our_cli(evidence, references):
            return False
        if index > 0 and not _is_plain_launcher(link, result.classes[index]):
            return False
    return False


def _names_a_program(link: Link) -> bool:
    """Whether the digest stands for what runs: known code, loaded as hashed, and nothing beside it."""
    script = link.script
    as_hashed = script is None or (script.kind in ("script", "module") and not script.younger_than_process)
    return code_known(link) and as_hashed and all(cap >= HARMLESS for cap, _ in caps(link, member=False))


def _not_our_cli(evidence: Evidence, references: References) -> str:
    peer = evidence.chain[0]
    reference = named(peer, references.cli)
    if reference is None:
        return f"{_name(peer)} is not attestctl of this installation"
    why = objection(peer, reference, user_mode=references.user_mode, sandboxed=sandboxed(evidence, peer))
    return f"this attestctl is not accepted: {why}" if why else ""


def _is_plain_launcher(link: Link, link_class: LinkClass) -> bool:
    script = link.script
    plain = script is None or script.kind == "none"
    return link_class is LinkClass.PASS and plain and all(cap >= HARMLESS for cap, _ in caps(link, member=True))


def _burden(link: Link) -> str:
    """What makes a shell more than one at its prompt, in words; empty if its name says it all."""
    found = [escape(entry) for cap, entry in caps(link, member=True) if cap < HARMLESS]
    return f", with {', '.join(found)}" if found else ""


def _unclean(evidence: Evidence, result: AttestationResult, references: References) -> str:
    """Why the chain is not clean, or an empty string."""
    chain, classes = evidence.chain, result.classes
    unknown = _not_our_cli(evidence, references)
    if unknown:
        return unknown
    edge = next((index for index, link_class in enumerate(classes) if link_class is LinkClass.EDGE), None)
    for index in range(1, len(chain) if edge is None else edge):
        if not _is_plain_launcher(chain[index], classes[index]):
            return f"{_name(chain[index])} is among its ancestors{_burden(chain[index])}"
    if edge is None or not result.terminal:
        return "no verified terminal program is among its ancestors"
    return _unclean_below(evidence, edge) or _unclean_above(evidence, result, edge)


def _unclean_below(evidence: Evidence, edge: int) -> str:
    below = evidence.chain[:edge]
    uids = (evidence.peer.uid,) * 4
    for link in below:
        unsound = _unsound(evidence, link)
        if unsound:
            return unsound
        if link.uids != uids:
            return f"{_name(link)} runs under other uids"
        if link.tty is None or link.tty != below[0].tty:
            return f"{_name(link)} is not on the same terminal"
        if link.reparented is not False:
            return f"it is not known what started {_name(link)}"
    shells = [link for link in below if link.script is not None and link.script.interpreter == "shell"]
    return "" if shells else "no shell at its prompt is among its ancestors"


def _unclean_above(evidence: Evidence, result: AttestationResult, edge: int) -> str:
    unsound = _unsound(evidence, evidence.chain[edge])
    if unsound:
        return unsound
    if evidence.end not in ("init", "namespace"):
        return "its ancestors could not be followed to the top"
    for index in range(edge + 1, len(evidence.chain)):
        link, link_class = evidence.chain[index], result.classes[index]
        if link_class is not LinkClass.EDGE and not _is_plain_launcher(link, link_class):
            return f"{_name(link)} started the terminal"
    return ""


def _name(link: Link) -> str:
    return f"{short_name(link, LinkClass.APP, None)} (pid {link.pid})"
