"""Invariants of appraisal: hostile facts never raise the level; what is only a label never changes a digest."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from attestd.appraisal.appraise import appraise
from attestd.appraisal.caps import CAPS
from attestd.appraisal.model import AttestationResult, CallerKind, LinkClass
from attestd.appraisal.posture import POSTURE
from attestd.appraisal.references import References
from attestd.evidence.model import Evidence, Link, Script
from tests.support.appraisal_cases import CASES
from tests.support.evidence import (
    NAMING,
    REFERENCES,
    USER_MODE,
    claude,
    evidence_of,
    evil,
    init,
    inline_of,
    link_of,
    npm_tool,
    python_client,
    shell,
    shim,
    shipped_table,
    sshd,
    terminal,
    tmux,
    user_systemd,
)

TABLE = shipped_table()
KINDS: tuple[Link, ...] = (
    shim(),
    shell(),
    shell("x"),
    shell("attestd-connect time"),
    claude(),
    evil(),
    python_client(),
    python_client("/opt/x.py"),
    python_client(script=inline_of("python", "x")),
    python_client(script=Script(kind="stdin", interpreter="python")),
    link_of(None),
    link_of(None, uid=0),
    link_of("/usr/bin/sudo", "dpkg:sudo", uid=0),
    link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat"),
    npm_tool("npx", "x"),
    npm_tool("npm", "run", "x"),
    tmux(),
    terminal(),
    sshd(),
    user_systemd(),
)
POSTURES = st.sampled_from([f"{rule.source} {rule.name}=/x" for rule in POSTURE] + ["map /x.so", "env NEW=1"])


@st.composite
def chains(draw: st.DrawFn) -> Evidence:
    """Any sequence of processes under pid 1."""
    links = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=7))
    end = draw(st.sampled_from(["init", "init", "init", "broken", "limit", "namespace", "unreadable"]))
    facts: dict[str, Any] = {"end": end, "exe_forgeable": draw(st.booleans())}
    return evidence_of(*links, *((init(),) if end == "init" else ()), **facts)


references_in_use = st.sampled_from([REFERENCES, USER_MODE])


def appraised(evidence: Evidence, references: References = REFERENCES) -> AttestationResult:
    """The result with the shipped table."""
    return appraise(evidence, TABLE, references, NAMING)


def with_link(evidence: Evidence, index: int, **facts: Any) -> Evidence:
    """The evidence with changed facts of one link."""
    chain = list(evidence.chain)
    chain[index] = msgspec.structs.replace(chain[index], **facts)
    return msgspec.structs.replace(evidence, chain=tuple(chain))


@settings(max_examples=600, deadline=None)
@given(evidence=chains(), references=references_in_use, data=st.data())
def test_posture_never_raises_the_level(evidence: Evidence, references: References, data: st.DataObject):
    """Seeing one more preload or search path anywhere never gives a higher level."""
    index = data.draw(st.integers(0, len(evidence.chain) - 1))
    worse = with_link(evidence, index, posture=(data.draw(POSTURES),))
    assert appraised(worse, references).level <= appraised(evidence, references).level


@settings(max_examples=600, deadline=None)
@given(evidence=chains(), references=references_in_use, data=st.data())
def test_tracing_never_raises_the_level(evidence: Evidence, references: References, data: st.DataObject):
    """A debugger on any link never gives a higher level."""
    index = data.draw(st.integers(0, len(evidence.chain) - 1))
    worse = with_link(evidence, index, tracer_pid=4321)
    assert appraised(worse, references).level <= appraised(evidence, references).level


@settings(max_examples=600, deadline=None)
@given(evidence=chains(), references=references_in_use, data=st.data())
def test_unreadable_user_links_never_raise_the_level(evidence: Evidence, references: References, data: st.DataObject):
    """A user's process that cannot be read gives no higher level, but for an unknown launcher in place of an orphan."""
    users = [index for index, link in enumerate(evidence.chain) if any(link.uids)]
    if not users:
        return
    worse = with_link(evidence, data.draw(st.sampled_from(users)), exe=None, origin=None, script=None)
    assert no_better(appraised(worse, references), appraised(evidence, references))


def no_better(worse: AttestationResult, result: AttestationResult) -> bool:
    """Whether ``worse`` is no higher, or an orphan became a program at level 1 whose launcher is unknown.

    That is no gain: a grant must accept an unknown launcher by name.
    """
    hidden = any(launcher.program is None for launcher in worse.launchers)
    return worse.level <= result.level or (worse.level == 1 and hidden)


@settings(max_examples=400, deadline=None)
@given(evidence=chains(), data=st.data())
def test_adoption_never_raises_the_level(evidence: Evidence, data: st.DataObject):
    """Doubt about a parent, or proof against it, gives no higher level, but for an unknown launcher."""
    index = data.draw(st.integers(0, len(evidence.chain) - 1))
    if evidence.chain[index].reparented is not False:
        return
    for doubt in (None, True):
        worse = with_link(evidence, index, reparented=doubt)
        if appraised(worse).accountable >= appraised(evidence).accountable:
            assert no_better(appraised(worse), appraised(evidence))


@settings(max_examples=400, deadline=None)
@given(evidence=chains(), data=st.data())
def test_labels_change_no_digest(evidence: Evidence, data: st.DataObject):
    """Names, control groups, terminals, sessions and times are labels: program and chain keep their digests."""
    word = data.draw(st.text(max_size=20))
    index = data.draw(st.integers(0, len(evidence.chain) - 1))
    number = data.draw(st.integers(2, 10**6))
    changed = with_link(evidence, index, comm=word, cgroup=word, session=number, start_ticks=number, gaps=(word,))
    changed = msgspec.structs.replace(changed, collected_ns=number, recorder_reason=word)
    one, other = appraised(evidence), appraised(changed)
    assert (one.program, one.chain, one.spiffe_id, one.level) == (
        other.program,
        other.chain,
        other.spiffe_id,
        other.level,
    )
    assert (one.kind, one.accountable, one.inline, one.classes) == (
        other.kind,
        other.accountable,
        other.inline,
        other.classes,
    )


@settings(max_examples=300, deadline=None)
@given(evidence=chains(), data=st.data())
def test_argv_only_makes_it_worse(evidence: Evidence, data: st.DataObject):
    """Without the words that npm and the shim's shell exception read, no level rises and no mark is lost."""
    index = data.draw(st.integers(0, len(evidence.chain) - 1))
    silent = with_link(evidence, index, argv=())
    one, other = appraised(evidence), appraised(silent)
    assert other.level <= one.level or other.accountable != one.accountable
    if other.accountable == one.accountable:
        assert other.inline or not one.inline


@settings(max_examples=600, deadline=None)
@given(evidence=chains(), references=references_in_use)
def test_result_is_consistent(evidence: Evidence, references: References):
    """Every result has a level that its reasons explain, one class a link, and a line of one row without controls."""
    result = appraised(evidence, references)
    assert result.level == min(reason.cap for reason in result.reasons)
    assert all(CAPS[reason.code].cap == reason.cap for reason in result.reasons)
    assert len(result.classes) == len(evidence.chain)
    assert 0 <= result.accountable < len(evidence.chain)
    assert result.display.isprintable()
    assert result.kind is not CallerKind.ORPHAN or result.level == 0
    assert result.level < 4
    if result.kind is CallerKind.PROGRAM:
        assert result.classes[result.accountable] not in (LinkClass.PASS, LinkClass.RELAY, LinkClass.EDGE)
        assert all(
            found in (LinkClass.PASS, LinkClass.RELAY)
            for found in result.classes[: result.accountable]
            if found is not result.classes[result.accountable]
        )
    if evidence.exe_forgeable:
        assert result.level <= 1


@given(text=st.text(max_size=200))
def test_hostile_paths_stay_in_their_place(text: str):
    """Whatever a file is called, the line keeps its parts: as many bars and dots as without it."""
    plain = appraised(evidence_of(evil("/home/dev/x"), shell(), terminal(), init())).display
    named = appraised(evidence_of(evil("/home/dev/" + text), shell(), terminal(), init())).display
    assert named.isprintable()
    assert (named.count("|"), named.count("·"), named.count('"')) == (
        plain.count("|"),
        plain.count("·"),
        plain.count('"'),
    )


def test_cases_are_many():
    """The vectors are the examples behind these properties; none is lost by accident."""
    assert len(CASES) >= 58
