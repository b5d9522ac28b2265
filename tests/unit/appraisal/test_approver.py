"""Who may approve."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from attestd.appraisal.appraise import appraise
from attestd.appraisal.approver import Approval, How, may_approve
from attestd.appraisal.digests import program_digest
from attestd.appraisal.references import References
from attestd.evidence.model import Evidence, Link, Peer, Script
from tests.support.evidence import (
    NAMING,
    OURS,
    REFERENCES,
    USER_MODE,
    attestctl,
    claude,
    evidence_of,
    evil,
    gnome_shell,
    init,
    inline_of,
    link_of,
    mac_desk,
    mac_evidence_of,
    mac_program,
    mac_zsh,
    npm_tool,
    python_client,
    script_of,
    shell,
    sshd,
    terminal,
    tmux,
    user_systemd,
)
from tests.support.evidence import shipped_table as table

TABLE = table()
ROOT_INIT = init()
DEMO = python_client("/opt/demo.py")
APPROVERS = frozenset({program_digest(DEMO)})


def asked(
    *links: Link, references: References = USER_MODE, approvers: frozenset[str] = frozenset(), **facts: Any
) -> Approval:
    """The answer for this chain."""
    return answer(evidence_of(*links, **facts), references, approvers)


def answer(evidence: Evidence, references: References, approvers: frozenset[str]) -> Approval:
    """The answer for this evidence."""
    return may_approve(evidence, appraise(evidence, TABLE, references, NAMING), references, approvers)


@pytest.mark.parametrize(
    "above",
    [
        (shell(), terminal(), user_systemd(), init()),
        (shell(), tmux(), init()),
        (shell(), sshd(), link_of("/usr/sbin/sshd", "dpkg:openssh-server", uid=0, tty=None), init()),
        (link_of("/usr/bin/timeout", "dpkg:coreutils"), shell(), shell(name="zsh"), terminal(), init()),
        (shell(), terminal(), shell(tty="pts/9"), terminal(), gnome_shell(), init()),
    ],
)
def test_clean_chain(above: tuple[Link, ...]):
    """A person at a shell in a verified terminal may approve in user mode."""
    assert asked(attestctl(), *above) == Approval(how=How.CLEAN_CHAIN)


def test_system_mode():
    """On a system installation a clean chain is not enough, and a chain that is not clean is not even asked for more."""
    clean = asked(attestctl(), shell(), terminal(), init(), references=REFERENCES)
    assert (clean.how, clean.allowed, clean.asks) == (How.PASSWORD, False, True)
    assert clean.reason == "the password of its user was not given"
    agents = asked(attestctl(), shell(), claude(), shell(), terminal(), init(), references=REFERENCES)
    assert (agents.how, agents.allowed, agents.asks) == (How.REFUSED, False, False)
    assert "is among its ancestors" in agents.reason


TOP = (terminal(), init())


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ((attestctl(), shell(), claude(), shell(), *TOP), "cli.js (pid 980) is among its ancestors"),
        ((attestctl(), shell("attestctl approve X"), *TOP), "bash with inline code (pid 990) is among its ancestors"),
        ((attestctl(), shell("x"), claude(), *TOP), "bash with inline code (pid 990) is among its ancestors"),
        (
            (attestctl(), shell(script=script_of("shell", "/home/dev/x.sh")), *TOP),
            "x.sh (pid 990) is among its ancestors",
        ),
        ((attestctl(), shell(), npm_tool("npx", "x"), *TOP), "npx-cli.js (pid 980) is among its ancestors"),
        (
            (attestctl(), shell(posture=("env LD_LIBRARY_PATH=/x",)), *TOP),
            "bash (pid 990) is among its ancestors, with env LD_LIBRARY_PATH=/x",
        ),
        (
            (attestctl(), shell(posture=("env BASH_ENV=/x", "opt --rcfile=/y")), *TOP),
            "is among its ancestors, with env BASH_ENV=/x, opt --rcfile=/y",
        ),
        ((attestctl(), shell(tracer_pid=4), *TOP), "is among its ancestors"),
        ((attestctl(), link_of(None), *TOP), "unreadable process"),
        ((attestctl(), *TOP), "no shell at its prompt is among its ancestors"),
        ((attestctl(), link_of("/usr/bin/env", "dpkg:coreutils"), *TOP), "no shell at its prompt"),
        ((attestctl(tty=None), shell(), *TOP), "is not on the same terminal"),
        ((attestctl(), shell(tty="pts/4"), *TOP), "is not on the same terminal"),
        ((attestctl(), shell(), init()), "no verified terminal program"),
        ((attestctl(), shell(), user_systemd(), init()), "no verified terminal program"),
        ((attestctl(), shell(), link_of(None, uid=0), init()), "no verified terminal program"),
        ((attestctl(), shell(reparented=None), *TOP), "it is not known what started bash"),
        ((attestctl(reparented=True), shell(), *TOP), "no verified terminal program"),
        ((attestctl(), shell(), terminal(), evil(), init()), "evil (pid 970) started the terminal"),
        ((attestctl(), shell(), terminal(), link_of(None), init()), "started the terminal"),
        ((attestctl(), shell(uids=(1000, 0, 0, 0)), *TOP), "runs under other uids"),
        ((attestctl(), link_of("/usr/bin/sudo", "dpkg:sudo", uid=0), shell(), *TOP), "runs under other uids"),
        ((python_client(), shell(), *TOP), "client.py (pid 1000) is not attestctl of this installation"),
        ((attestctl(posture=("env PYTHONPATH=/x",)), shell(), *TOP), "this attestctl is not accepted"),
        ((attestctl(script=inline_of("python", "x")), shell(), *TOP), "is not attestctl"),
    ],
)
def test_unclean(links: tuple[Link, ...], reason: str):
    """Whatever is not a person at a terminal is refused, with the clause that says why."""
    found = asked(*links)
    assert found.how is How.REFUSED
    assert reason in found.reason


def test_chain_that_was_not_seen_to_its_top():
    """A chain whose top was not reached is not clean."""
    assert "to the top" in asked(attestctl(), shell(), terminal(), end="limit").reason
    assert asked(attestctl(), shell(), terminal(), end="namespace").how is How.CLEAN_CHAIN


ROOT = {"uid": 0}


def test_root():
    """Root may approve from anywhere, in both modes."""
    for references in (REFERENCES, USER_MODE):
        assert asked(evil(**ROOT), claude(), init(), references=references) == Approval(how=How.ROOT)


@pytest.mark.parametrize(
    "facts",
    [
        {"uids": (1000, 0, 0, 0)},
        {"uids": (0, 0, 0, 1000)},
        {"uid": 0, "tracer_pid": 3},
        {"uid": 0, "namespaces": msgspec.structs.replace(OURS, ours_user=False)},
        {"uid": 0, "namespaces": msgspec.structs.replace(OURS, ours_pid=None)},
    ],
)
def test_not_quite_root(facts: dict[str, Any]):
    """A setuid process, a traced one and a root of another namespace are not root."""
    assert asked(evil(**facts), init()).how is How.REFUSED


def test_root_by_the_socket_only():
    """Both the socket and the process must say root."""
    evidence = evidence_of(evil(uid=0), init())
    other = msgspec.structs.replace(evidence, peer=msgspec.structs.replace(evidence.peer, uid=1000))
    assert answer(other, USER_MODE, frozenset()).how is How.REFUSED


@pytest.mark.parametrize("source", ["pid", "pid-only"])
def test_peer_by_number(source: str):
    """A caller known by number approves nothing, root included."""
    peer = Peer(pid=1000, uid=0, gid=0, groups=(), security_label=None, source=source)
    assert asked(evil(uid=0), init(), peer=peer).reason == "the kernel named the caller by number only"


@pytest.mark.parametrize("references", [REFERENCES, USER_MODE])
def test_named_program(references: References):
    """A named program approves itself, or through our attestctl under plain launchers."""
    for links in ((DEMO, claude()), (attestctl(), DEMO, evil()), (attestctl(), shell(), DEMO)):
        found = asked(*links, init(), references=references, approvers=APPROVERS)
        assert found == Approval(how=How.APPROVER)


@pytest.mark.parametrize(
    "links",
    [
        (evil(), DEMO),
        (attestctl(), evil(), DEMO),
        (attestctl(), shell("x"), DEMO),
        (attestctl(reparented=True), DEMO),
        (attestctl(), shell(reparented=None), DEMO),
        (attestctl(posture=("env PYTHONPATH=/x",)), DEMO),
        (attestctl(tracer_pid=3), DEMO),
        (attestctl(), msgspec.structs.replace(DEMO, tracer_pid=3)),
        (attestctl(), msgspec.structs.replace(DEMO, posture=("env LD_PRELOAD=/x",))),
        (attestctl(), msgspec.structs.replace(DEMO, posture=("env PYTHONPATH=/x",))),
        (attestctl(), python_client(script=script_of("python", "/opt/demo.py", younger_than_process=True))),
        (attestctl(), msgspec.structs.replace(DEMO, namespaces=msgspec.structs.replace(OURS, ours_user=False))),
        (attestctl(), claude()),
    ],
)
def test_not_the_named_program(links: tuple[Link, ...]):
    """A stranger between, a broken chain, a tampered process or another program does not approve."""
    assert asked(*links, shell(), terminal(), init(), approvers=APPROVERS).how is How.REFUSED


@pytest.mark.parametrize("kind", ["stdin", "none", "unresolved"])
def test_named_digest_of_unknown_code(kind: str):
    """A digest that many programs share approves nothing, even if it is configured."""
    bare = python_client(script=Script(kind=kind, interpreter="python"))
    assert asked(bare, init(), approvers=frozenset({program_digest(bare)})).how is How.REFUSED


def test_no_approvers_by_default():
    """Without configuration no program approves."""
    assert asked(DEMO, init()).how is How.REFUSED


def on_a_mac(link: Link) -> Link:
    """The same program, as macOS shows it in a terminal window."""
    mac = mac_program(link.exe.path if link.exe else "", "python3", status=0x20000003)
    return msgspec.structs.replace(link, signature=mac.signature, namespaces=mac.namespaces, tty=mac.tty)


def test_a_clean_chain_on_macos():
    """Zsh under login under Terminal, named by the token of the socket; not under an agent, nor by pid alone."""
    desk = (mac_zsh(), *mac_desk())
    clean = mac_evidence_of(on_a_mac(attestctl()), *desk)
    assert answer(clean, USER_MODE, frozenset()) == Approval(how=How.CLEAN_CHAIN)
    named = msgspec.structs.replace(clean, peer=msgspec.structs.replace(clean.peer, source="pid-only"))
    assert answer(named, USER_MODE, frozenset()).reason == "the kernel named the caller by number only"
    agent = mac_program("/Users/u/agent", "Q6L2SF6YDW/agent", signer="Developer ID")
    under = mac_evidence_of(on_a_mac(attestctl()), mac_zsh("attestctl approve X"), agent, *desk)
    assert answer(under, USER_MODE, frozenset()).how is How.REFUSED
