"""Who is accountable, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.appraisal.attribution import Attribution, attribute, is_shim_command
from attestd.appraisal.membership import classify
from attestd.appraisal.model import CallerKind
from attestd.evidence.model import Link, Script
from tests.support.evidence import (
    REFERENCES,
    chain_of,
    claude,
    evidence_of,
    evil,
    init,
    inline_of,
    link_of,
    python_client,
    script_of,
    shell,
    shim,
    shipped_table,
    terminal,
    tmux,
)

TABLE = shipped_table()


def who(*links: Link, **facts: Any) -> Attribution:
    """Attribution of a chain, peer first."""
    evidence = evidence_of(*links, **facts)
    return attribute(evidence, classify(evidence, TABLE, REFERENCES))


def test_rule_1_nearest():
    """The nearest link that is neither relay nor launcher is accountable."""
    assert who(shim(), shell("x"), claude(), evil(), terminal(), init()).accountable == 2


def test_rule_2_person():
    """Only launchers below an edge: a person, and the outermost shell stands for them."""
    found = who(shim(), shell("x"), shell(), terminal(), init())
    assert (found.kind, found.accountable, found.edge) == (CallerKind.INTERACTIVE, 2, 3)


def test_rule_2_needs_a_terminal():
    """Without a controlling terminal nobody sits there."""
    found = who(shim(tty=None), shell("x", tty=None), terminal(), init())
    assert (found.kind, found.broken) == (CallerKind.ORPHAN, "no-terminal")


def test_rule_2_edge_as_peer():
    """An edge that calls by itself is nobody's client."""
    assert who(tmux(), init()).kind is CallerKind.ORPHAN


def test_rule_3_collapse():
    """Helpers of the same code and uid collapse; other uids and unknown code do not."""
    assert who(shim(), evil(), evil(), evil(), terminal(), init()).accountable == 3
    assert who(shim(), evil(), evil(uid=1001), terminal(), init()).accountable == 1
    bare = python_client(script=Script(kind="none", interpreter="python"))
    assert who(bare, bare, terminal(), init()).accountable == 0


def test_rule_3_neighbours_only():
    """The same program further out is not a neighbour, but no stranger in the launch context either."""
    found = who(shim(), claude(), shell(), claude(), terminal(), init())
    assert (found.accountable, found.launchers) == (1, ())


def test_rule_4_unreadable():
    """An unreadable link is accountable, and hides nobody behind it."""
    assert who(shim(), link_of(None), shell(), claude(), terminal(), init()).accountable == 1


@pytest.mark.parametrize(
    ("between", "inline"),
    [
        (shell("attestd-connect time"), False),
        (shell("/opt/attestd/bin/attestd-connect time"), False),
        (shell("attestd-connect  'time'"), False),
        (shell("attestd-connect time --verbose"), True),
        (shell("attestd-connect other"), True),
        (shell("attestd-connect time; evil"), True),
        (shell("attestd-connect time && evil"), True),
        (shell("attestd-connect time < /tmp/x"), True),
        (shell("attestd-connect $(evil)"), True),
        (shell("A=b attestd-connect time"), True),
        (shell("evil | attestd-connect time"), True),
        (shell("attestd-connect 'time"), True),
        (shell("attestd-connect"), True),
        (shell(""), True),
        (shell("evil-connect time"), True),
        (shell("attestd-connect time\nevil"), True),
        (shell(script=Script(kind="stdin", interpreter="shell")), True),
        (shell(), False),
        (link_of("/usr/bin/env", "dpkg:coreutils"), False),
    ],
)
def test_rule_5_inline(between: Link, inline: bool):
    """Inline code marks the request, except exactly the command line of the shim directly below."""
    assert who(shim("time"), between, claude(), terminal(), init()).inline is inline


def test_rule_5_only_directly_above_the_shim():
    """The exception needs the shim itself below the shell, not another shell or program."""
    text = "attestd-connect time"
    assert who(shim(), shell(text), shell(text), claude(), terminal(), init()).inline
    assert who(shell(text), claude(), terminal(), init()).inline


def test_rule_5_above_the_client_is_no_inline():
    """How the client was started does not mark its requests."""
    assert not who(shim(), claude(), shell("claude"), terminal(), init()).inline


def test_rule_5_options_count():
    """Every word of the shim must stand in the text, and no other."""
    relay = chain_of(shim(argv=("python", "/opt/attestd/bin/attestd-connect", "time", "--wait=3")))[0]
    assert is_shim_command("attestd-connect time --wait=3", relay)
    assert not is_shim_command("attestd-connect time", relay)
    assert not is_shim_command("attestd-connect time --wait=3 " + " " * 4096, relay)


@pytest.mark.parametrize("end", ["broken", "limit", "unreadable", "init", "new"])
def test_rule_6_chain_without_edge(end: str):
    """A chain that ends before any edge hides who launched the client; one that is too long or unreadable is an orphan's."""
    found = who(shim(), claude(), shell(), end=end)
    hidden = end not in ("limit", "unreadable")
    kind, launcher = (CallerKind.PROGRAM, 2) if hidden else (CallerKind.ORPHAN, 2)
    assert (found.kind, found.accountable, found.edge, found.unknown_launcher) == (kind, 1, None, launcher)
    assert found.end == ("broken" if hidden else end)
    assert found.broken == {"limit": "chain-limit", "unreadable": "chain-unreadable"}.get(end, "")


def test_rule_6_a_client_without_a_parent():
    """Where the accountable client itself was left alone, it is an orphan."""
    assert who(shim(), claude(), end="broken").kind is CallerKind.ORPHAN
    assert who(shim(), claude(reparented=True), terminal(), init()).kind is CallerKind.ORPHAN


def test_rule_6_end_of_namespace_is_an_edge():
    """Where our pid namespace was entered the chain ends as at an edge."""
    assert who(shim(), claude(), shell(), end="namespace").kind is CallerKind.PROGRAM
    assert who(shim(), shell(), end="namespace").kind is CallerKind.INTERACTIVE


def test_rule_6_adopted():
    """Nothing above an adopted link is an ancestor."""
    found = who(shim(), shell("x", reparented=True), claude(), terminal(), init())
    assert (found.kind, found.accountable, found.last) == (CallerKind.ORPHAN, 1, 1)
    hidden = who(shim(), claude(), shell(reparented=True), terminal(), init())
    assert (hidden.kind, hidden.unknown_launcher, hidden.edge) == (CallerKind.PROGRAM, 2, None)


def test_rule_6_perhaps_adopted():
    """On the path doubt makes an orphan; above the client it is an unknown launcher; an edge is always adopted."""
    assert who(shim(), claude(reparented=None), init()).kind is CallerKind.ORPHAN
    assert who(shim(), shell(reparented=None), init()).kind is CallerKind.ORPHAN
    found = who(shim(), claude(), shell(reparented=None), init())
    assert (found.kind, found.unknown_launcher) == (CallerKind.PROGRAM, 2)
    assert who(shim(), claude(), shell(), tmux(reparented=True), init()).kind is CallerKind.PROGRAM


def test_rule_7_launchers():
    """Every stranger up to the first edge is a launcher, once; what stands above the edge is not asked."""
    found = who(shim(), claude(), evil(), shell(), evil(), link_of(None), terminal(), evil("/home/other"), init())
    assert found.launchers == (2, 5)


def test_rule_7_script_shell():
    """A shell that ran a file is a launcher."""
    script = shell(script=script_of("shell", "/home/dev/x.sh"))
    assert who(shim(), claude(), script, terminal(), init()).launchers == (2,)


def test_rule_7_unknown_code_is_never_the_same():
    """Two programs from standard input have one digest and are still strangers."""
    bare = python_client(script=Script(kind="stdin", interpreter="python"))
    assert who(bare, shell(), bare, terminal(), init()).launchers == (2,)


def test_rule_7_inline_program_is_the_same_only_with_the_same_text():
    """Inline programs are compared by their text."""
    one, other = (python_client(script=inline_of("python", text)) for text in ("1", "2"))
    assert who(one, shell(), one, terminal(), init()).launchers == ()
    assert who(one, shell(), other, terminal(), init()).launchers == (2,)
