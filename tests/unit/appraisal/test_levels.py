"""Levels and their reasons: the table, and each fact by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from attestd.appraisal.appraise import appraise
from attestd.appraisal.caps import CAPS, reason
from attestd.appraisal.model import AttestationResult
from attestd.evidence.model import InputHolders, Link, Peer, Script
from tests.support.appraisal_cases import CASES, vector_of
from tests.support.evidence import (
    NAMING,
    OURS,
    REFERENCES,
    claude,
    evidence_of,
    init,
    link_of,
    origin_of,
    python_client,
    script_of,
    shell,
    shim,
    shipped_table,
    terminal,
)

TABLE = shipped_table()
TOP = (shell(), terminal(), init())


def appraised(*links: Link, **facts: Any) -> AttestationResult:
    """Result of a chain on a host where executables cannot be forged."""
    evidence = evidence_of(*links, *TOP, **({"exe_forgeable": False} | facts))
    return appraise(evidence, TABLE, REFERENCES, NAMING)


def codes(result: AttestationResult) -> set[str]:
    """The codes of the reasons."""
    return {reason.code for reason in result.reasons}


def client(**facts: Any) -> Link:
    """A native program of a verified package."""
    return link_of("/usr/bin/mcp-chat", "dpkg:mcp-chat", **facts)


def spaces(**facts: Any) -> dict[str, Any]:
    """Changed namespaces."""
    return {"namespaces": msgspec.structs.replace(OURS, **facts)}


@pytest.mark.parametrize(
    ("link", "level", "code"),
    [
        (client(), 3, "no-kernel-signature"),
        (client(origin=None), 2, "origin-unverified"),
        (client(origin=origin_of("dpkg:mcp-chat", verified=False)), 2, "origin-unverified"),
        (client(file={"owner_uid": 7}), 2, "origin-unverified"),
        (client(file={"writable": True}), 1, "exe-writable"),
        (client(file={"deleted": True}), 1, "exe-deleted"),
        (client(file={"fs": "fuse"}), 1, "exe-fuse"),
        (client(file={"fs": "nfs4"}), 1, "exe-network"),
        (client(file={"memfd": True}), 0, "memfd"),
        (client(tracer_pid=5), 0, "traced"),
        (client(dead=True), 0, "dead"),
        (client(**spaces(ours_user=False)), 0, "foreign-user-namespace"),
        (client(**spaces(ours_user=None)), 0, "foreign-user-namespace"),
        (client(**spaces(ours_pid=False)), 0, "foreign-pid-namespace"),
        (client(**spaces(ours_pid=None)), 0, "foreign-pid-namespace"),
        (client(**spaces(ours_mnt=False, mnt=3)), 1, "foreign-mount-namespace"),
        (client(posture=("env LD_PRELOAD=/x",)), 0, "preload"),
        (client(posture=("env LD_LIBRARY_PATH=/x",)), 1, "search-path"),
        (client(uids=(1000, 0, 0, 0)), 1, "uid-mixed"),
        (link_of(None), 0, "unreadable"),
        (python_client("/opt/x.py"), 2, "origin-unverified"),
        (python_client(script=script_of("python", "/usr/bin/x", origin_of("dpkg:x"))), 3, "no-kernel-signature"),
        (
            python_client(script=script_of("python", "/x", origin_of("dpkg:x"), file={"writable": True})),
            1,
            "script-writable",
        ),
        (python_client(script=script_of("python", "/x", file={"memfd": True})), 0, "memfd"),
        (python_client(script=script_of("python", "/x", sha256=None)), 0, "script-unknown"),
        (python_client(script=script_of("python", "/x", younger_than_process=True)), 0, "script-younger"),
        (python_client(script=Script(kind="stdin", interpreter="python")), 0, "script-unknown"),
        (python_client(script=Script(kind="unresolved", interpreter="python")), 0, "script-unknown"),
        (python_client(script=Script(kind="none", interpreter="python")), 1, "bare-interpreter"),
        (python_client(script=Script(kind="inline", interpreter="python", text="x")), 0, "script-unknown"),
    ],
)
def test_each_fact(link: Link, level: int, code: str):
    """One changed fact gives its reason, and the level is its cap."""
    result = appraised(link)
    assert code in codes(result)
    assert result.level == level


@pytest.mark.parametrize(
    ("source", "level", "code"),
    [("proved", 3, ""), ("pid", 3, "inspected"), ("pid-only", 0, "pid-only"), ("", 0, "pid-only")],
)
def test_source_of_the_peer(source: str, level: int, code: str):
    """A peer known by number only is nobody; inspection by number is a remark."""
    peer = Peer(pid=1000, uid=1000, gid=1000, groups=(), security_label=None, source=source)
    result = appraised(client(), peer=peer)
    assert result.level == level
    assert codes(result) & {"inspected", "pid-only"} == ({code} if code else set())


def test_forgeable_image():
    """Where executables can be forged every image is a claim, unless the exec of the whole path was recorded."""
    claimed = appraised(client(), exe_forgeable=True)
    assert (claimed.level, claimed.recorded) == (1, False)
    recorded = appraised(client(recorded=True), exe_forgeable=True)
    assert (recorded.level, recorded.recorded) == (3, True)
    partly = appraised(shim(), client(recorded=True), exe_forgeable=True)
    assert (partly.level, partly.recorded) == (1, False)


@pytest.mark.parametrize(
    ("holders", "level", "code"),
    [
        (InputHolders(kind="pipe", pids=(990,), complete=True), 3, ""),
        (InputHolders(kind="socket", pids=(980, 990), complete=True), 0, "input-shared"),
        (InputHolders(kind="pipe", pids=(990, 5), complete=True), 0, "input-shared"),
        (InputHolders(kind="pipe", pids=(), complete=True), 0, "input-unheld"),
        (InputHolders(kind="pipe", pids=(990,), complete=False), 1, "input-unknown"),
        (InputHolders(kind="unknown", pids=(), complete=False), 1, "input-unknown"),
        (InputHolders(kind="new", pids=(), complete=True), 1, "input-unknown"),
        (InputHolders(kind="file", pids=(), complete=True), 1, "input-file"),
        (InputHolders(kind="none", pids=(), complete=True), 3, ""),
        (InputHolders(kind="tty", pids=(), complete=True), 1, "input-unknown"),
        (None, 1, "input-unknown"),
    ],
)
def test_input_of_the_relay(holders: InputHolders | None, level: int, code: str):
    """Through the shim, only the accountable client and what stands between may hold the input."""
    result = appraised(shim(), client(), input=holders)
    assert result.level == level
    assert {found for found in codes(result) if found.startswith("input-")} == ({code} if code else set())


def test_input_of_a_person():
    """A person's shell holds the terminal, which has no writers to list."""
    tty = InputHolders(kind="tty", pids=(), complete=True)
    assert not any(code.startswith("input-") for code in codes(appraised(shim(), input=tty)))


def test_input_without_relay():
    """A client that connects by itself is asked for no input."""
    foreign = InputHolders(kind="pipe", pids=(5,), complete=True)
    assert appraised(client(), input=foreign).level == 3


def test_launchers_cap():
    """A stranger above the client caps at 1 and is named."""
    result = appraised(shim(), client(), claude())
    assert result.level == 1
    assert reason("launcher", "cli.js") in result.reasons


def test_facts_above_the_client_do_not_count_as_its_own():
    """A preload in a launcher makes it a launcher, not the client a preloaded one."""
    result = appraised(client(), shell(posture=("env BASH_ENV=/x",)))
    assert (result.level, "launcher" in codes(result), "preload" in codes(result)) == (1, True, False)


def test_vectors_use_every_reason():
    """No row of the table is without a vector, except those named here."""
    used = {reason.code for case in CASES for reason in vector_of(case).expected.reasons}
    assert set(CAPS) - used == {
        "inspected",
        "exe-network",
        "foreign-pid-namespace",
        "chain-limit",
        "chain-unreadable",
    }
