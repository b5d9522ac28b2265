"""Trees: the chain of a process, and who launched the live sessions. Outermost first, as people read ancestry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attestd.cli.output import ago
from attestd.cli.safe_text import quoted, safe
from attestd.control.replies import Ancestor, Identity, Link, Reason, Session

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

_STYLES = {"app": "bold", "host": "bold", "unreadable": "red", "edge": "cyan"}


def chain_tree(chain: Sequence[Link], accountable: int) -> Tree:
    """Draw a chain (the process itself first) as a tree with its end at the top."""
    from rich.tree import Tree  # noqa: PLC0415 - see output

    tree: Tree | None = None
    at: Tree | None = None
    for index in range(len(chain) - 1, -1, -1):
        label = _link(chain[index], accountable=index == accountable)
        at = Tree(label) if at is None else at.add(label)
        tree = tree or at
    return tree or Tree("the chain is not known any more")


def _link(link: Link, *, accountable: bool) -> Text:
    from rich.text import Text  # noqa: PLC0415 - see output

    name = link.comm or (link.exe.path.rsplit("/", 1)[-1] if link.exe else "unreadable")
    label = Text.assemble(
        (safe(name, 64), _STYLES.get(link.cls, "")), f" (pid {link.pid}, uid {link.uid}) {safe(link.cls)}"
    )
    if link.dead:
        label.append("  has exited", "yellow")
    if accountable:
        label.append("  <- the accountable client", "bold green")
    for detail in _details(link):
        label.append("\n" + detail)
    return label


def _details(link: Link) -> Iterable[str]:
    if link.exe is not None:
        flags = [word for word, holds in (("deleted", link.exe.deleted), ("writable", link.exe.writable)) if holds]
        yield safe(f"{link.exe.path}  sha256 {(link.exe.sha256 or 'unreadable')[:16]}  {' '.join(flags)}".rstrip())
    if link.script is not None:
        digest = f"  sha256 {link.script.sha256[:16]}" if link.script.sha256 else ""
        yield safe(f"runs {link.script.kind} {link.script.path or link.script.name}{digest}")
    if link.origin is not None:
        vouched = "verified" if link.origin.verified else "not verified"
        yield safe(f"from {link.origin.kind} {link.origin.name} {link.origin.version} ({vouched})")
    if link.tracer_pid:
        yield f"traced by pid {link.tracer_pid}"
    if link.posture:
        yield safe("preloads: " + ", ".join(link.posture))
    if link.gaps:
        yield safe("not read: " + ", ".join(link.gaps))


def session_tree(sessions: Sequence[Session]) -> list[Tree]:
    """Draw sessions below the processes that launched them; ancestors that several share appear once."""
    from rich.text import Text  # noqa: PLC0415 - see output
    from rich.tree import Tree  # noqa: PLC0415

    roots: list[Tree] = []
    nodes: dict[tuple[tuple[int, int], ...], Tree] = {}
    for session in sessions:
        path: tuple[tuple[int, int], ...] = ()
        parent: Tree | None = None
        for ancestor in session.ancestors:
            path = (*path, (ancestor.pid, ancestor.start))
            if path not in nodes:
                label = Text(_ancestor(ancestor), _STYLES.get(ancestor.cls, ""))
                nodes[path] = Tree(label) if parent is None else parent.add(label)
                if parent is None:
                    roots.append(nodes[path])
            parent = nodes[path]
        leaf = Text.assemble((safe(session.session), "bold"), _session(session))
        if parent is None:
            roots.append(Tree(leaf))
        else:
            parent.add(leaf)
    return roots


def _ancestor(ancestor: Ancestor) -> str:
    return safe(f"{ancestor.title} (pid {ancestor.pid}) {ancestor.cls}")


def _session(session: Session) -> str:
    denied = f", {session.denials} denied" if session.denials else ""
    claim = f", calls itself {quoted(session.client_name)}" if session.client_name else ""
    return (
        f" -> {safe(session.server)}: {session.calls} calls{denied}, since {ago(session.since)}, "
        f"L{session.caller.level}{claim}\n{safe(session.caller.display)}"
    )


def identity_pairs(identity: Identity) -> list[tuple[str, str]]:
    """Return labels and values of an identity, every reason on a line of its own."""
    held = "recorded" if identity.recorded else "not recorded"
    return [
        ("caller", identity.display),
        ("kind", identity.kind),
        ("level", f"{identity.level} ({held})"),
        *(("reason", reason_text(reason)) for reason in identity.reasons),
        ("program", identity.program),
        ("chain", identity.chain),
        ("instance", identity.instance),
        ("spiffe id", identity.spiffe_id),
        *(
            (
                "launched by",
                f"{launcher.display}{' (a build step)' if launcher.build_step else ''} {launcher.program or ''}",
            )
            for launcher in identity.launchers
        ),
        ("inline", "through inline code" if identity.inline else ""),
    ]


def reason_text(reason: Reason) -> str:
    """Return one cap on the level, or one remark, in words."""
    bound = f"at most {reason.cap}: " if reason.cap < 4 else ""
    return f"{bound}{reason.code}{': ' if reason.detail else ''}{reason.detail}"
