"""What a link is, and what it loses its membership by."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from attestd.appraisal.classes import ClassTable, parse_class_table
from attestd.appraisal.membership import classify
from attestd.appraisal.model import LinkClass
from attestd.evidence.model import Link, Script
from tests.support.evidence import (
    HOME,
    OURS,
    REFERENCES,
    USER_MODE,
    claude,
    evidence_of,
    file_of,
    init,
    inline_of,
    link_of,
    node_program,
    npm_tool,
    origin_of,
    python_client,
    script_of,
    sha,
    shell,
    shim,
    shipped_table,
    terminal,
)

TABLE = shipped_table()
SHIM = "/opt/attestd/bin/attestd-connect"
ELSEWHERE = msgspec.structs.replace(OURS, mnt=1, ours_mnt=False)


def classes(*links: Link, table: ClassTable = TABLE, references: Any = REFERENCES, **facts: Any) -> list[LinkClass]:
    """Classes of a chain, peer first."""
    return [member.link_class for member in classify(evidence_of(*links, **facts), table, references)]


def class_of(link: Link, **options: Any) -> LinkClass:
    """Class of one link in the middle of a chain."""
    return classes(python_client(), link, terminal(), init(), **options)[1]


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (shell(), LinkClass.PASS),
        (shell("x"), LinkClass.PASS),
        (shell(script=Script(kind="stdin", interpreter="shell")), LinkClass.PASS),
        (shell(script=Script(kind="unresolved", interpreter="shell")), LinkClass.HOST),
        (shell(script=script_of("shell", "/opt/x.sh")), LinkClass.HOST),
        (shell(script=None), LinkClass.APP),
        (link_of("/bin/bash", "dpkg:bash", script=Script(kind="none", interpreter="shell")), LinkClass.PASS),
        (link_of("/usr/bin/env", "dpkg:coreutils"), LinkClass.PASS),
        (link_of("/usr/bin/ls", "dpkg:coreutils"), LinkClass.APP),
        (link_of("/usr/bin/env", "rpm:coreutils"), LinkClass.PASS),
        (link_of("/usr/bin/env", "npm:coreutils"), LinkClass.APP),
        (link_of("/usr/bin/env", ""), LinkClass.APP),
        (link_of("/usr/bin/env", origin=origin_of("dpkg:coreutils", verified=False)), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", file={"writable": True}), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", file={"deleted": True}), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", file={"memfd": True}), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", file={"sha256": None}), LinkClass.UNREADABLE),
        (link_of("/usr/bin/env", "dpkg:coreutils", tracer_pid=7), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", dead=True), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", namespaces=ELSEWHERE), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", posture=("env LD_PRELOAD=/x",)), LinkClass.APP),
        (link_of("/usr/bin/env", "dpkg:coreutils", posture=("env LD_LIBRARY_PATH=/x",)), LinkClass.PASS),
        (shell(posture=("env BASH_ENV=/x",)), LinkClass.HOST),
        (shell(posture=("map /tmp/x.so",)), LinkClass.HOST),
        (terminal(posture=("env LD_PRELOAD=/x",)), LinkClass.APP),
        (node_program("/opt/x.js"), LinkClass.HOST),
        (link_of("/usr/bin/node", "dpkg:nodejs", script=inline_of("node", "1")), LinkClass.HOST),
        (npm_tool("npx", "x"), LinkClass.PASS),
        (npm_tool("npx", "x", posture=("env NODE_OPTIONS=--require=/x",)), LinkClass.HOST),
        (link_of(None), LinkClass.UNREADABLE),
        (link_of(None, pid=1), LinkClass.EDGE),
    ],
)
def test_class(link: Link, expected: LinkClass):
    """Only a verified, unwritable, undisturbed program of the table is a member."""
    assert class_of(link) is expected


def test_interpreter_by_itself_is_no_member():
    """An entry for an interpreter's executable does not make every script of it a member."""
    text = 'version = 1\n[[entry]]\nclass = "pass"\norigin = "dpkg:nodejs"\nfiles = ["/usr/bin/node"]\n'
    assert class_of(node_program("/opt/x.js"), table=parse_class_table(text)) is LinkClass.HOST


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("node", "/usr/bin/npm", "exec", "x"), LinkClass.PASS),
        (("node", "/usr/bin/npm", "--yes", "x", "y"), LinkClass.PASS),
        (("node", "/usr/bin/npm", "--prefix=/x", "exec", "y"), LinkClass.PASS),
        (("npm exec x",), LinkClass.PASS),
        (("npm exec x", "", ""), LinkClass.PASS),
        (("node", "/usr/bin/npm", "run", "exec"), LinkClass.HOST),
        (("node", "/usr/bin/npm", "install"), LinkClass.HOST),
        (("node", "/usr/bin/npm", "--prefix", "exec", "run"), LinkClass.HOST),
        (("npm exec x", "/usr/bin/npm", "run", "x"), LinkClass.HOST),
        (("node", "/usr/bin/npm"), LinkClass.HOST),
        (("npm run x",), LinkClass.HOST),
        (("claude",), LinkClass.HOST),
        ((), LinkClass.HOST),
    ],
)
def test_npm_command_can_only_withhold(argv: tuple[str, ...], expected: LinkClass):
    """Npm itself passes for exec and x alone; what cannot be told for certain is a build step."""
    links = (python_client(), npm_tool("npm", argv=argv), terminal(), init())
    member = classify(evidence_of(*links), TABLE, REFERENCES)[1]
    assert member.link_class is expected
    assert member.build_step is (expected is LinkClass.HOST)


def test_claim_of_a_command_helps_no_other_program():
    """A program that says it is npm exec, without being npm, is an ordinary program."""
    assert class_of(link_of(f"{HOME}/npm", argv=("npm exec x",))) is LinkClass.APP
    assert class_of(node_program(f"{HOME}/npm-cli.js", argv=("node", "npm", "exec"))) is LinkClass.HOST


def test_unverified_origin_makes_a_build_step_only():
    """An npm that merely says so in its package.json is marked, which makes nothing better."""
    claimed = node_program(f"{HOME}/n/npm-cli.js", origin_of("npm:npm", verified=False), argv=("node", "npm", "exec"))
    member = classify(evidence_of(python_client(), claimed, terminal(), init()), TABLE, REFERENCES)[1]
    assert (member.link_class, member.build_step) == (LinkClass.HOST, True)


def test_digest_entry():
    """A listed digest is a member without a package, if the caller cannot write it."""
    text = f'version = 1\n[[entry]]\nclass = "pass"\nsha256 = "{sha("/opt/run")}"\n'
    table = parse_class_table(text)
    assert class_of(link_of("/opt/run"), table=table) is LinkClass.PASS
    assert class_of(link_of("/opt/run", file={"writable": True}), table=table) is LinkClass.APP
    assert class_of(link_of("/opt/other"), table=table) is LinkClass.APP


def test_script_digest_entry():
    """A listed script digest needs the listed interpreter and an unwritable file, older than the process."""
    text = (
        'version = 1\n[[entry]]\nclass = "edge"\norigin = "dpkg:python3.11-minimal"\n'
        f'files = ["/usr/bin/python3.11"]\nscript_sha256 = "{sha("/opt/term.py")}"\n'
    )
    table = parse_class_table(text)
    assert class_of(python_client("/opt/term.py"), table=table) is LinkClass.EDGE
    younger = script_of("python", "/opt/term.py", younger_than_process=True)
    assert class_of(python_client(script=younger), table=table) is LinkClass.HOST
    writable = script_of("python", "/opt/term.py", file={"writable": True})
    assert class_of(python_client(script=writable), table=table) is LinkClass.HOST
    assert class_of(python_client(script=inline_of("python", "x")), table=table) is LinkClass.HOST


def test_root_boundary():
    """An unreadable process of root is EDGE above a user's processes and below none of them."""
    hidden = link_of(None, uid=0)
    assert classes(claude(), shell(), hidden, init())[2] is LinkClass.EDGE
    assert classes(claude(), hidden, shell(), terminal(), init())[1] is LinkClass.UNREADABLE
    assert classes(claude(uid=0), hidden, init())[1] is LinkClass.UNREADABLE
    assert classes(hidden, init())[0] is LinkClass.UNREADABLE
    assert classes(claude(), link_of(None, uids=(1000, 0, 0, 0)), init())[1] is LinkClass.UNREADABLE


def test_mount_namespace_is_compared_with_the_top():
    """A daemon in a mount namespace of its own compares with the top of the chain, not with itself."""
    outside = msgspec.structs.replace(OURS, mnt=9, ours_mnt=False)
    links = [claude(namespaces=outside), shell(namespaces=outside), terminal(namespaces=outside)]
    top = msgspec.structs.replace(init(), namespaces=outside)
    assert classes(*links, top)[1] is LinkClass.PASS
    unreadable = msgspec.structs.replace(top, namespaces=msgspec.structs.replace(outside, mnt=None, ours_mnt=None))
    assert classes(*links, unreadable)[1] is LinkClass.HOST


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"tracer_pid": 3}, "traced"),
        ({"posture": ("env PYTHONPATH=/x",)}, "started with preloads or search paths"),
        ({"posture": ("env LD_LIBRARY_PATH=/x",)}, "started with preloads or search paths"),
        ({"namespaces": ELSEWHERE}, "in another mount namespace"),
        ({"script": script_of("python", SHIM, younger_than_process=True)}, "changed since it was started"),
        ({"script": script_of("python", SHIM, file={"deleted": True})}, "deleted or in memory"),
        ({"script": script_of("python", SHIM, kind="module")}, "not run as a script"),
        ({"script": script_of("python", "/opt/x/attestd-connect", sha256=sha(SHIM))}, "not the installed file"),
    ],
)
@pytest.mark.parametrize("references", [REFERENCES, USER_MODE], ids=["system", "user"])
def test_relay(changed: dict[str, Any], expected: str, references: Any):
    """The shim is the installed file, undisturbed; what has its digests but is not it says why and is accountable."""
    member = classify(evidence_of(shim(**changed), claude(), terminal(), init()), TABLE, references)[0]
    assert member.relay_objection == expected
    assert member.link_class is (LinkClass.HOST if expected else LinkClass.RELAY)


def test_relay_in_a_writable_place():
    """A shim that the caller can write is the shim in user mode only."""
    path = "/opt/attestd/bin/attestd-connect"
    own = shim(script=script_of("python", path, file={"writable": True}))
    assert classes(own, claude(), terminal(), init())[0] is LinkClass.HOST
    assert classes(own, claude(), terminal(), init(), references=USER_MODE)[0] is LinkClass.RELAY


def test_relay_is_the_peer_only():
    """The shim starts nothing: as an ancestor it is no relay."""
    assert classes(python_client(), shim(), terminal(), init())[1] is LinkClass.HOST


def test_other_scripts_are_no_relay():
    """The reference interpreter with another script, or another interpreter with the script, is an ordinary program."""
    assert classes(python_client(), terminal(), init())[0] is LinkClass.HOST
    other = shim(exe=file_of("/usr/bin/python3.12"))
    assert classes(other, terminal(), init())[0] is LinkClass.HOST
    assert classes(shim(script=inline_of("python", "x")), terminal(), init())[0] is LinkClass.HOST
