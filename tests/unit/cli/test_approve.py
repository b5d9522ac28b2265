"""Approving: what is shown is what is granted, no is the default, and nothing is left unsaid when nobody is asked."""

from __future__ import annotations

from attestd.cli.approve import lasts, objects
from attestd.control import replies as r
from tests.support.control_instance import Installation
from tests.support.control_samples import NOW
from tests.support.terminal import on_terminal


def grant(lifetime: str, **changes: object) -> r.Grant:
    """A grant of this lifetime."""
    values: dict[str, object] = {
        "id": "g",
        "subject": r.Subject(uid=0, program_kind="exact", program="a"),
        "object": r.Object(server="s"),
        "min_level": 1,
        "lifetime": lifetime,
        "expires": None,
        "hits": 0,
        "last_used": None,
        "approved_by": "",
        "origin": "",
        **changes,
    }
    return r.Grant(**values)  # type: ignore[arg-type]


def test_yes_grants_what_the_client_asked_for(fresh: Installation) -> None:
    """Without an object option, exactly the refused call is granted."""
    (granted,) = fresh.json("approve", "7f3k9qrt", "--yes")
    assert granted["object"] == {
        "server": "time",
        "tools": ["get_current_time"],
        "resources": [],
        "prompts": [],
        "server_requests": [],
    }
    assert granted["how"] == "clean-chain"
    assert [pending["code"] for pending in fresh.json("pending")] == ["EV1L-NAME", "LNCH-2222", "CNCT-3333"]


def test_options_reach_the_grant(fresh: Installation) -> None:
    """Tools, lifetime, program kind and inline code are what was typed."""
    words = ("--tool", "a", "--tool", "b*", "--for", "1h", "--program", "package", "--inline", "--yes")
    (granted,) = fresh.json("approve", "7F3K-9QRT", *words)
    assert granted["object"]["tools"] == ["a", "b*"]
    assert (granted["lifetime"], granted["expires"] is not None) == ("until", True)
    assert (granted["subject"]["program_kind"], granted["subject"]["inline"]) == ("package", True)


def test_yes_does_not_hide_a_launcher(fresh: Installation) -> None:
    """A client that a foreign program launched is approved unasked only when that program is named."""
    refused = fresh.run("approve", "LNCH-2222", "--yes")
    assert refused.returncode == 2
    assert "launched by evil" in refused.stderr
    assert "--launched-by eeeeeeeeeeeeeeee" in refused.stderr
    (granted,) = fresh.json("approve", "LNCH-2222", "--launched-by", "e" * 16, "--yes")
    assert granted["subject"]["launched_by"] == ["e" * 64]


def test_any_interactive_names_no_launcher(fresh: Installation) -> None:
    """A clean chain only: the launcher that was present is not in the grant."""
    (granted,) = fresh.json("approve", "LNCH-2222", "--launched-by", "any-interactive", "--yes")
    assert granted["subject"]["launched_by"] == []


def test_yes_does_not_grant_everything_by_default(fresh: Installation) -> None:
    """A client that has named no tool yet gets every tool only if that is said."""
    refused = fresh.run("approve", "CNCT-3333", "--yes")
    assert refused.returncode == 2
    assert "--all-tools" in refused.stderr
    (granted,) = fresh.json("approve", "CNCT-3333", "--all-tools", "--yes")
    assert granted["object"]["tools"] == ["*"]


def test_a_person_sees_the_caller_and_says_yes(fresh: Installation) -> None:
    """The question comes after caller, tree, difference and grant, and yes grants it."""
    code, seen = on_terminal(fresh, "approve", "7F3K-9QRT", answer="y\n", env={"NO_COLOR": "1"})
    assert code == 0
    for expected in (
        "client.py · sha256 abababab",
        "<- the accountable client",
        "2.1.327 -> 2.1.328",
        "Last approved:",
        "tools    get_current_time",
        "Grant this? [y/N]",
        "granted g-2",
    ):
        assert expected in seen


def test_no_is_the_default(fresh: Installation) -> None:
    """Return, no, and end of input grant nothing."""
    for answer, expected in (("\n", 9), ("n\n", 9), ("\x04", 1)):
        assert on_terminal(fresh, "approve", "7F3K-9QRT", answer=answer)[0] == expected
    assert [found["id"] for found in fresh.json("grants", "list")] == ["g-1"]


def test_a_person_is_told_of_launchers(fresh: Installation) -> None:
    """The launcher is in the question, so the answer covers it."""
    code, seen = on_terminal(fresh, "approve", "LNCH-2222", answer="y\n", env={"NO_COLOR": "1"})
    assert code == 0
    assert "launched by  evil" in seen
    assert "! the grant also holds when launched by evil" in seen


def test_a_pipe_that_says_yes_is_not_a_person(fresh: Installation) -> None:
    """Without a terminal nothing is asked, even if somebody would answer."""
    result = fresh.run("approve", "7F3K-9QRT")
    assert result.returncode == 2
    assert "--yes" in result.stderr
    assert [found["id"] for found in fresh.json("grants", "list")] == ["g-1"]


def test_a_caller_that_may_not_approve_is_refused(idle: Installation) -> None:
    """The daemon's refusal is exit code 4, with the reason and what to do; nothing is granted."""
    with idle.daemon(how=""):
        result = idle.run("approve", "7F3K-9QRT", "--yes")
        assert result.returncode == 4
        assert "node is an ancestor" in result.stderr
        assert "hint: approve from a terminal" in result.stderr
        assert [found["id"] for found in idle.json("grants", "list")] == ["g-1"]


def test_the_daemons_objection_is_shown(fresh: Installation) -> None:
    """Terms that the daemon cannot grant are refused before anything is asked."""
    result = fresh.run("approve", "7F3K-9QRT", "--tool", "nonsense", "--yes")
    assert result.returncode == 2
    assert "nonsense" in result.stderr


def test_only_what_was_shown_is_granted(idle: Installation) -> None:
    """A client that asks for more while the person reads does not get it by the answer."""
    with idle.daemon(restless=True):
        code, seen = on_terminal(idle, "approve", "7F3K-9QRT", answer="y\n")
        assert code == 4
        assert "changed since it was shown" in seen
        assert [found["id"] for found in idle.json("grants", "list")] == ["g-1"]


def test_a_used_code_is_gone(fresh: Installation) -> None:
    """The second approval finds nothing: exit code 9."""
    fresh.json("approve", "7F3K-9QRT", "--yes")
    assert fresh.run("approve", "7F3K-9QRT", "--yes").returncode == 9


def test_lifetimes_are_said_in_words() -> None:
    """Each kind has its words, an end in time its time, and a revoked grant says so."""
    assert lasts(grant("process")) == "while this process lives"
    assert lasts(grant("until", expires=NOW)).startswith("until 2026-07-30")
    assert lasts(grant("standing", revoked=NOW)).startswith("revoked 2026-07-30")


def test_everything_is_said_in_words() -> None:
    """A star is never shown as if it were a name."""
    assert objects(r.Object(server="s", tools=("*",), prompts=("a", "b"))) == [
        ("tools", "every one of the tools"),
        ("prompts", "a, b"),
    ]
