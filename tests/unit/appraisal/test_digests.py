"""Digests and names, byte for byte."""

from __future__ import annotations

import hashlib
from itertools import combinations

import msgspec
import pytest

from attestd.appraisal.digests import (
    Naming,
    chain_digest,
    chain_text,
    code_known,
    instance,
    program_digest,
    program_text,
    spiffe_id,
    workload_id,
)
from attestd.errors import ConfigurationError
from attestd.evidence.model import Link, Script
from tests.support.evidence import BOOT, NAMING, evidence_of, evil, link_of, python_client, sha

X, Y = "a" * 64, "b" * 64


def with_script(**facts: object) -> Link:
    """An interpreter with this script."""
    return link_of("/usr/bin/python3", file={"sha256": X}, script=Script(interpreter="python", **facts))


FORMS = {
    "": link_of("/x", file={"sha256": X}),
    f"script {Y}\n": with_script(kind="script", sha256=Y),
    f"module a.b_c {Y}\n": with_script(kind="module", name="a.b_c", sha256=Y),
    f"inline {Y}\n": with_script(kind="inline", sha256=Y),
    "stdin\n": with_script(kind="stdin"),
    "none\n": with_script(kind="none"),
    "unresolved\n": with_script(kind="unresolved"),
}


@pytest.mark.parametrize(("code", "link"), FORMS.items())
def test_program_text(code: str, link: Link):
    """The text is the pinned one and the digest is its SHA-256."""
    assert program_text(link) == f"attestd program v1\nexe {X}\n{code}"
    assert program_digest(link) == hashlib.sha256(program_text(link).encode()).hexdigest()


def test_program_digest_constant():
    """One digest as a constant, so that no refactoring changes the format unseen."""
    assert (
        program_digest(FORMS[f"script {Y}\n"])
        == hashlib.sha256(b"attestd program v1\nexe " + b"a" * 64 + b"\nscript " + b"b" * 64 + b"\n").hexdigest()
    )


def test_forms_never_collide():
    """Each form is a program of its own: without code, from standard input, at a prompt, and unresolved."""
    for one, other in combinations(FORMS.values(), 2):
        assert program_digest(one) != program_digest(other)


def test_unreadable():
    """Without a digest of the executable the line says so; an empty or malformed digest is not a digest."""
    for link in (link_of(None), link_of("/x", file={"sha256": None}), link_of("/x", file={"sha256": ""})):
        assert program_text(link) == "attestd program v1\nexe unreadable\n"
        assert not code_known(link)


@pytest.mark.parametrize(
    "facts",
    [
        {"kind": "script"},
        {"kind": "script", "sha256": ""},
        {"kind": "module", "name": "a\nexe b", "sha256": Y},
        {"kind": "module", "name": "", "sha256": Y},
        {"kind": "inline"},
        {"kind": "something new", "sha256": Y},
    ],
)
def test_what_cannot_be_written_is_unresolved(facts: dict[str, str]):
    """A missing digest, a module name that is none, and an unknown kind are unresolved code."""
    assert program_text(with_script(**facts)).endswith("\nunresolved\n")
    assert not code_known(with_script(**facts))


def test_code_known():
    """Files, modules and inline text are known code; stdin, prompts and unresolved are not."""
    assert [code for code, link in FORMS.items() if code_known(link)] == list(FORMS)[:4]


def test_chain_text():
    """Links outwards, equal neighbours once, unequal uids apart, the end only where no edge ended it."""
    links = [(X, 1000), (X, 1000), (Y, 1000), (X, 1000), (X, 0)]
    text = f"attestd chain v1\nlink {X} uid 1000\nlink {Y} uid 1000\nlink {X} uid 1000\nlink {X} uid 0\n"
    assert chain_text(links) == text
    assert chain_text(links, "broken") == text + "end broken\n"
    assert chain_digest(links) == hashlib.sha256(text.encode()).hexdigest()


def test_instance():
    """The pidfs inode names the process; without it pid and start time do."""
    evidence = evidence_of(python_client())
    link = evidence.chain[0]
    assert instance(evidence, link) == f"{BOOT}/{link.pidfs_ino}/0"
    bare = msgspec.structs.replace(link, pidfs_ino=None)
    assert instance(evidence, bare) == f"{BOOT}/{link.pid}-{link.start_ticks}/0"


def test_spiffe_ids():
    """Both forms of the ID, with the first forty digits."""
    assert spiffe_id(NAMING, uid=7, program=X, chain=Y) == (
        f"spiffe://example.org/host/laptop-7/uid/7/program/{'a' * 40}/chain/{'b' * 40}"
    )
    assert workload_id(NAMING, uid=7, workload="claude-code") == (
        "spiffe://example.org/host/laptop-7/uid/7/workload/claude-code"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "x" * 256])
def test_segments(name: str):
    """What is not one segment of a SPIFFE ID is refused, wherever it comes from."""
    with pytest.raises(ConfigurationError):
        workload_id(NAMING, uid=1, workload=name)
    with pytest.raises(ConfigurationError):
        Naming(trust_domain="example.org", host_id=name)
    with pytest.raises(ConfigurationError):
        Naming(trust_domain=name if name not in (".", "..") else "A.org", host_id="h")


def test_digest_ignores_names():
    """Path, argv and title are labels: the same bytes are the same program."""
    one = evil("/a", file={"sha256": sha("x")}, argv=("a",), comm="a")
    other = evil("/b", file={"sha256": sha("x")}, argv=("b",), comm="b")
    assert program_digest(one) == program_digest(other)
