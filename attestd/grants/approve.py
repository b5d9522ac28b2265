"""From a waiting request and a person's options to a grant. Pure: the id, the time and the approver are values.

Rules. Without options a grant covers exactly what was wanted. Where only a connection was wanted there is nothing exact
to grant, so it covers every tool, resource and prompt of that server, never a request of the server, and ``notes`` says
so. How long a grant may last is bounded by what was approved (``_BOUNDS``): a digest that does not fix the code is
approved for this process only; interactive callers and inline code for the login session at most. Launchers that were
present are named in the grant; one that could not be read must be accepted by the word ``unreadable``. A package or a
lineage can stand for the program only while a verified package vouches for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from attestd.appraisal.model import AttestationResult, CallerKind, Launcher
from attestd.errors import NotPermittedError, UsageError
from attestd.grants.globs import LITERAL
from attestd.grants.lifetimes import bounded, lifetime
from attestd.grants.match import UNREADABLE, package_name, search_paths
from attestd.grants.model import Grant, Identity, Object, Pending, Subject
from attestd.grants.wanted import ASKED_METHODS, ONLY_CONNECTED, wanted

ANY_INTERACTIVE = "any-interactive"
"""In ``launched_by``: from a clean chain only, whatever launched the program when it was refused."""
SHORTEST_PREFIX = 8


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said. Empty: the default of the module's rules."""

    tools: tuple[str, ...] = ()
    all_tools: bool = False
    resources: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    server_requests: tuple[str, ...] = ()
    """Methods, or the words sampling, elicitation, roots."""
    lifetime: str = ""
    """once | process | session | binary | standing | a duration such as 15m, 1h, 8h (24h at most)"""
    program: str = "exact"
    """exact | package | lineage"""
    launched_by: tuple[str, ...] | None = None
    """None: the launchers that were present. Else any of ``any-interactive``, ``unreadable``, a launcher's line, its
    program digest (a present launcher's by a prefix of at least 8 digits, any other in full)."""
    inline: bool = False
    """Accept calls through inline code too. Always so where the approved call came that way."""
    min_level: int = 1


def approve(pending: Pending, options: Options, *, grant_id: str, now_ns: int, approved_by: str, how: str) -> Grant:
    """The grant that these options make of this request.

    Raises UsageError for options that do not fit, NotPermittedError for what no option can grant.
    """
    result = identity(pending)
    if result.level < 1 or result.kind is CallerKind.ORPHAN:
        raise NotPermittedError(
            "cannot approve a caller of level 0: nothing is known that a grant could name",
            hint="see why with: attestctl inspect",
        )
    if not 1 <= options.min_level <= result.level:
        raise UsageError(
            f"cannot demand level {options.min_level}: allowed are 1 to {result.level}, the level of the caller"
        )
    inline = options.inline or result.inline
    bound = bounded(result, pending.runs, inline=inline)
    subject = Subject(
        uid=result.uid,
        program_kind=options.program,
        program=_program(result, options.program),
        launched_by=_launched_by(result, options.launched_by),
        inline=inline,
        search_paths=search_paths(result),
        kind="interactive" if result.kind is CallerKind.INTERACTIVE else "program",
    )
    return Grant(
        id=grant_id,
        subject=subject,
        object=_object(pending, options),
        min_level=options.min_level,
        lifetime=lifetime(options.lifetime, result, bound, options.program, now_ns),
        created_ns=now_ns,
        approved_by=approved_by,
        how=how,
        origin=pending.code,
        display=result.display,
        identity=Identity(
            title=result.title,
            program=result.program,
            chain=result.chain,
            level=result.level,
            package=result.package,
            lineage=result.lineage,
            launchers=tuple(launcher.display for launcher in result.launchers),
        ),
    )


def identity(pending: Pending) -> AttestationResult:
    """The caller of a waiting request. Raises msgspec.ValidationError if the entry was not made by attestd."""
    return msgspec.json.decode(pending.identity, type=AttestationResult)


def notes(pending: Pending, options: Options, grant: Grant) -> tuple[str, ...]:
    """What a person should know before saying yes: where defaults decided, and what is unusual about the caller."""
    lines: list[str] = []
    if not _named(options) and wanted(pending.wants) is ONLY_CONNECTED:
        lines.append(
            "only a connection was asked for: the grant covers every tool, resource and prompt of "
            f"{grant.object.server}, and no request of the server"
        )
    result = identity(pending)
    if grant.subject.launched_by:
        names = ", ".join(launcher.display for launcher in result.launchers) or "the named programs"
        lines.append(f"the grant also holds when launched by {names}")
    lines += warnings(grant)
    lines += [f"{launcher.display} is a build step" for launcher in result.launchers if launcher.build_step]
    lines += [f"the grant also holds when started with {found}" for found in grant.subject.search_paths]
    if grant.subject.inline:
        lines.append("the grant also holds for calls through inline code")
    if not options.lifetime and grant.lifetime.kind in ("process", "session"):
        until = "this process" if grant.lifetime.kind == "process" else "this login session"
        lines.append(f"the grant ends with {until}: what was approved cannot be recognised beyond it")
    return tuple(lines)


def warnings(grant: Grant) -> tuple[str, ...]:
    """What a grant accepts that nobody should accept unknowingly; said whenever one is made or shown."""
    if UNREADABLE not in grant.subject.launched_by:
        return ()
    hiding = "any program of this user that starts the client and hides by exiting may use this grant, whoever it is"
    return (f"it accepts the launcher {UNREADABLE!r}: {hiding}; name launchers by digest wherever they can be read",)


def _program(result: AttestationResult, kind: str) -> str:
    match kind:
        case "exact":
            return result.program
        case "package" | "lineage":
            name = package_name(result.package) if kind == "package" else result.lineage
            if not name or not result.package:
                raise UsageError(
                    f"cannot grant by {kind}: no verified package vouches for {result.title}",
                    hint="use --program exact; after an update the client is refused once, with the difference shown",
                )
            return name
        case _:
            raise UsageError(f"cannot grant by program {kind!r}: allowed are exact, package, lineage")


def _launched_by(result: AttestationResult, words: tuple[str, ...] | None) -> tuple[str, ...]:
    if words is None:
        if any(launcher.program is None for launcher in result.launchers):
            raise UsageError(
                "cannot name a launcher that could not be read",
                hint=f"accept it with --launched-by {UNREADABLE}; --launched-by {ANY_INTERACTIVE} means a clean chain",
            )
        return _unique(launcher.program for launcher in result.launchers if launcher.program is not None)
    return _unique(named for word in words for named in _launcher(result.launchers, word))


def _launcher(present: tuple[Launcher, ...], word: str) -> tuple[str, ...]:
    if word == ANY_INTERACTIVE:
        return ()
    if word == UNREADABLE or _is_digest(word):
        return (word,)
    found = [
        launcher.program
        for launcher in present
        if launcher.program is not None
        and (word == launcher.display or (len(word) >= SHORTEST_PREFIX and launcher.program.startswith(word)))
    ]
    if len(set(found)) != 1:
        shown = ", ".join(launcher.display for launcher in present) or "none"
        raise UsageError(
            f"cannot find the launcher {word!r}: present are {shown}",
            hint=f"also allowed: {ANY_INTERACTIVE}, {UNREADABLE}, a program digest of 64 hex digits",
        )
    return (found[0],)


def _object(pending: Pending, options: Options) -> Object:
    if not _named(options):
        found = wanted(pending.wants)
        if found is None:
            raise UsageError(
                "cannot tell what to grant: nothing that was asked for can be named",
                hint="name it with --tool, --all-tools, --resource or --prompt",
            )
        return msgspec.structs.replace(found, server=pending.server)
    for pattern in (*options.tools, *options.resources, *options.prompts):
        if pattern in ("", LITERAL):
            raise UsageError("cannot grant an empty name", hint="write * to mean all")
    tools = ("*",) if options.all_tools else options.tools
    return Object(
        server=pending.server,
        tools=_unique(tools),
        resources=_unique(options.resources),
        prompts=_unique(options.prompts),
        server_requests=_unique(_asked(word) for word in options.server_requests),
    )


def _named(options: Options) -> bool:
    return bool(options.all_tools or options.tools or options.resources or options.prompts or options.server_requests)


def _asked(word: str) -> str:
    method = ASKED_METHODS.get(word, word)
    if method not in ASKED_METHODS.values():
        raise UsageError(f"cannot grant the server request {word!r}: allowed are {', '.join(ASKED_METHODS)}")
    return method


def _is_digest(word: str) -> bool:
    return len(word) == 64 and all(digit in "0123456789abcdef" for digit in word)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
