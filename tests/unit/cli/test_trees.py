"""Trees are drawn outermost first, share what is shared, and escape every name."""

from __future__ import annotations

import io

import pytest

from attestd.cli.output import console
from attestd.cli.trees import chain_tree, identity_pairs, session_tree
from attestd.control import replies as r
from tests.support.control_samples import EVIL, identity, link, session


def drawn(*trees: object) -> list[str]:
    """The lines of trees."""
    buffer = io.StringIO()
    to = console(buffer)
    for tree in trees:
        to.print(tree)
    return [each.rstrip() for each in buffer.getvalue().splitlines()]


def ancestors(*pids: int) -> tuple[r.Ancestor, ...]:
    """A way to a session."""
    return tuple(r.Ancestor(pid=pid, start=pid, cls="app", title=f"p{pid}") for pid in pids)


def test_a_chain_is_drawn_from_its_end_to_the_process() -> None:
    """The terminal is on top, the process at the bottom, and the accountable link is marked."""
    lines = drawn(chain_tree((link(3, "client.py", "host"), link(2, "zsh", "pass"), link(1, "ghostty", "edge")), 0))
    order = [
        next(at for at, text in enumerate(lines) if name in text) for name in ("ghostty (", "zsh (", "client.py (")
    ]
    assert order == sorted(order)
    assert "client.py (pid 3, uid 0) host  <- the accountable client" in lines[order[2]]
    assert sum("<-" in text for text in lines) == 1


def test_facts_that_matter_are_named() -> None:
    """Writable and deleted images, preloads, gaps, tracers and unverified origins are in the picture."""
    shown = "\n".join(drawn(chain_tree((link(3, "client.py", "host"),), 0)))
    for expected in ("writable", "runs script", "preloads: env LD_PRELOAD", "not read: exe: permission denied"):
        assert expected in shown


def test_a_link_without_an_image_is_drawn() -> None:
    """An unreadable link has a line, too."""
    bare = r.Link(pid=1, start=1, uid=0, cls="unreadable", exe=None, script=None, origin=None, tracer_pid=9)
    shown = "\n".join(drawn(chain_tree((bare,), 0)))
    assert "unreadable (pid 1" in shown
    assert "traced by pid 9" in shown


def test_an_unknown_chain_is_said() -> None:
    """Nothing to draw is a sentence, not an error."""
    assert drawn(chain_tree((), 0)) == ["the chain is not known any more"]


def test_names_cannot_forge_branches() -> None:
    """A name with line breaks and tree characters stays one escaped name."""
    shown = drawn(chain_tree((link(3, EVIL, "host"),), 0))
    assert not any("\x1b" in text or "\u202e" in text for text in shown)
    assert "[red]" in "".join(shown)


def test_shared_ancestors_appear_once() -> None:
    """Two sessions below one terminal hang on one branch; the same pid at another start is another process."""
    trees = session_tree([session(1, ancestors(10, 20)), session(2, ancestors(10, 21))])
    assert len(trees) == 1
    lines = drawn(*trees)
    assert sum("p10 (pid 10)" in text for text in lines) == 1
    other = (r.Ancestor(pid=10, start=99, cls="app", title="p10"),)
    assert len(session_tree([session(1, ancestors(10)), session(2, other)])) == 2


def test_a_session_without_known_ancestors_stands_alone() -> None:
    """It is drawn at the top."""
    assert "s-1 -> time: 4 calls, 1 denied" in drawn(*session_tree([session(1, ())]))[0]


def test_claims_are_in_quotation_marks() -> None:
    """What a client calls itself is never mistaken for what it is."""
    assert '"claude-code 2.1.328"' in " ".join(drawn(*session_tree([session(1, ())])))


@pytest.mark.parametrize(("cap", "text"), [(1, "at most 1: exe_forgeable: user namespaces are allowed"), (4, "note")])
def test_reasons_say_what_they_cap(cap: int, text: str) -> None:
    """A cap names its level, a remark does not."""
    assert ("reason", text) in identity_pairs(identity("a"))
    assert cap in (1, 4)
