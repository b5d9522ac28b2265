"""What posture entries do to the level."""

from __future__ import annotations

import pytest

from attestd.appraisal.posture import POSTURE, caps, loads_code, posture_cap
from attestd.evidence.model import Link, Script
from tests.support.evidence import claude, evil, link_of, python_client, shell

ENV = link_of("/usr/bin/env", "dpkg:coreutils")


@pytest.mark.parametrize(
    ("entry", "link", "member", "cap"),
    [
        ("env LD_PRELOAD", ENV, True, 0),
        ("env LD_PRELOAD=/x.so", ENV, True, 0),
        ("env LD_PRELOAD=", ENV, True, 4),
        ("env LD_AUDIT=/x.so", evil(), False, 0),
        ("env LD_LIBRARY_PATH=/x", ENV, True, 1),
        ("map /tmp/x.so", ENV, True, 0),
        ("map /tmp/a=b.so", ENV, True, 0),
        ("argv --require=/x.js", claude(), False, 0),
        ("argv --inspect", claude(), False, 0),
        ("argv -l", shell(), True, 1),
        ("argv --rcfile=/x", shell(), True, 0),
        ("env NODE_OPTIONS", claude(), False, 0),
        ("env NODE_OPTIONS=--require /x.js", claude(), False, 0),
        ("env NODE_OPTIONS=--max-old-space-size=4096", claude(), False, 4),
        ("env NODE_OPTIONS=--max-old-space-size=4096 --import=/x", claude(), False, 0),
        ("env NODE_OPTIONS=--max-old-space-size=40...", claude(), False, 0),
        ("env NODE_OPTIONS=--require=/x", python_client(), False, 4),
        ("env NODE_OPTIONS=--require=/x", evil(), False, 0),
        ("env NODE_OPTIONS=--require=/x", ENV, True, 4),
        ("env PYTHONPATH=/x", python_client(), False, 1),
        ("env PYTHONPATH=/x", evil(), False, 1),
        ("env PYTHONHOME=/x", python_client(), False, 0),
        ("env BASH_ENV=/x", shell(), True, 0),
        ("env BASH_ENV=/x", claude(), False, 4),
        ("env BASH_FUNC_which%%=() {  x", shell(), True, 1),
        ("env ELECTRON_RUN_AS_NODE=1", evil(), False, 0),
        ("env ELECTRON_RUN_AS_NODE=1", claude(), False, 4),
        ("env SOMETHING_NEW=1", ENV, True, 0),
        ("env and 3 more", ENV, True, 0),
        ("", ENV, True, 0),
    ],
)
def test_cap(entry: str, link: Link, member: bool, cap: int):
    """Code named is 0, search paths are 1, what concerns another interpreter is nothing, what is unknown is 0."""
    assert posture_cap(entry, link, member=member) == cap


def test_shortened_value_is_not_trusted():
    """A value that the collector cut may hide anything behind the cut."""
    cut = "env NODE_OPTIONS=" + "--no-warnings " * 5 + "--no-w..."
    assert posture_cap(cut, claude(), member=False) == 0


def test_all_entries_count():
    """Every entry of a link is reported; one that loads code is enough."""
    link = python_client(posture=("env PYTHONPATH=/x", "env LD_PRELOAD=/y"))
    assert caps(link, member=False) == ((1, "env PYTHONPATH=/x"), (0, "env LD_PRELOAD=/y"))
    assert loads_code(link, member=False)
    assert not loads_code(python_client(posture=("env PYTHONPATH=/x",)), member=False)


def test_table_has_no_name_twice():
    """The table is literal: a name stands once."""
    names = [(rule.source, rule.name) for rule in POSTURE]
    assert len(set(names)) == len(names)


def test_other_interpreters_count_everything_of_theirs():
    """An interpreter without rules of its own still has the loader's variables."""
    lua = link_of("/usr/bin/lua", script=Script(kind="unresolved", interpreter="other"))
    assert posture_cap("env LD_PRELOAD=/x", lua, member=False) == 0
