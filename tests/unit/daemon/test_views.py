"""From the daemon's values to replies: nothing is lost, nothing secret is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from attestd.appraisal.model import AttestationResult, LinkClass
from attestd.audit.findings import Problem, Report
from attestd.audit.model import Head
from attestd.daemon import views
from attestd.daemon.backs import ServerImage
from attestd.evidence.model import Evidence
from tests.support import machine
from tests.support.daemons import Inside
from tests.support.evidence import evidence_of, link_of, node_program, origin_of, python_client, shell, terminal
from tests.support.results import make_grant, make_pending, make_result


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


def result_for(evidence: Evidence) -> AttestationResult:
    """A result with a class for each link."""
    return make_result(classes=(LinkClass.APP,) * len(evidence.chain))


def test_an_inspection_has_every_link():
    """Executable, script and the origin of what is run, script before image."""
    evidence = evidence_of(node_program("/srv/x.js", origin_of("npm:x")), link_of(None), shell(), terminal())
    found = views.inspection(evidence, result_for(evidence))
    assert [link.pid for link in found.chain] == [link.pid for link in evidence.chain]
    first, hidden = found.chain[:2]
    assert first.script is not None
    assert (first.script.path, first.origin and first.origin.kind) == ("/srv/x.js", "npm")
    assert first.exe is not None
    assert first.exe.path == "/usr/bin/node"
    assert (hidden.exe, hidden.gaps) == (None, ("exe: permission denied",))
    data = msgspec.to_builtins(found)
    assert {"class", "exe", "script"} <= set(data["chain"][0])


def test_a_waiting_request_draws_its_chain_only_while_it_fits():
    """Without remembered evidence, or with that of another chain, there is no chain to draw."""
    evidence = evidence_of(python_client(), shell(), terminal())
    entry = make_pending(identity=msgspec.json.encode(result_for(evidence)))
    assert len(views.pending(entry, evidence).chain) == 3
    assert views.pending(entry, None).chain == ()
    assert views.pending(entry, evidence_of(python_client())).chain == ()
    assert views.pending(entry, None, "claude 1.0").client_name == "claude 1.0"


def test_a_grant_keeps_its_terms():
    """Times are times, and what is absent stays absent."""
    found = views.grant(make_grant())
    assert (found.expires, found.revoked, found.last_used) == (None, None, None)
    assert found.object.tools == ("get",)
    ended = views.grant(make_grant(revoked_ns=1_700_000_000_000_000_000, hits=3))
    assert ended.revoked is not None
    assert (ended.revoked.year, ended.hits) == (2023, 3)


async def test_a_server_shows_names_of_its_environment_only(inside: Inside):
    """Values of the environment are secrets."""
    front = inside.daemon.fronts["time"]
    front.settings = msgspec.structs.replace(front.settings, env={"TOKEN": "hunter2"})
    found = views.server(front, Path("/x.toml"), 2)
    assert (found.env, found.state, found.sessions) == (("TOKEN",), "serving", 2)
    assert b"hunter2" not in msgspec.json.encode(found)
    front.image = ServerImage(pid=1, uid=2, path="/bin/x", sha256=None)
    assert "sha256 unreadable" in views.server(front, Path("/x"), 0).detail
    front.trouble = "cannot start"
    assert (views.server(front, Path("/x"), 0).detail, views.state(front, 3)) == ("cannot start", "failed")
    front.trouble = ""
    assert views.state(front, 0) == "ready"


async def test_a_session_has_its_ancestors_from_the_top(inside: Inside):
    """Who launched whom, the client last, with short titles."""
    await inside.connect()
    (info,) = inside.daemon.sessions.values()
    found = views.session(info)
    expected = {"linux": ["ghostty", "bash", "client.py"], "darwin": ["launchd", "agent"]}
    assert [each.title for each in found.ancestors] == expected[machine.chosen]
    assert (found.server, found.calls, found.denials) == ("time", 0, 0)


def test_a_verification_has_its_problems():
    """Record, segment and offset of each are kept."""
    report = Report(
        ok=False,
        records=5,
        segments=1,
        head=Head(size=5, chain="cc", root="ab"),
        problems=(Problem(what="broken", seq=3, segment=0, offset=77),),
    )
    found = views.verification(report)
    assert (found.ok, found.records, found.head) == (False, 5, "ab")
    (problem,) = found.problems
    assert (problem.what, problem.record, problem.segment, problem.offset) == ("broken", 3, "0", 77)
