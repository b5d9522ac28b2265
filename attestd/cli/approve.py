"""``attestctl approve``: shows what would be granted, asks, and only then grants exactly that.

The daemon works out the grant and its doubts (``ShowPending``); the answer to the question is sent with the digest of
what was shown, so that nothing else can be granted by it. Whether the person at this terminal may approve at all is
the daemon's decision. Nobody is asked with ``--yes``: then whatever a person would have been warned of must be named
by an option.
"""

from __future__ import annotations

import re
import sys
from typing import Any, cast

import click
from click.shell_completion import CompletionItem

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import console, fields, line, print_json, remark, when
from attestd.control.client import Answer
from attestd.control.messages import Approve, ProgramKind, ShowPending, Terms
from attestd.control.replies import Grant, Object, PendingDetail
from attestd.errors import ExitCode, UsageError

_WORDS = ("once", "process", "session", "15m", "1h", "8h", "standing", "binary")
_EVERYTHING = ("*",)


def lifetime_word(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Accept a word of the table, or minutes or hours. Raises click's usage error."""
    if value and value not in _WORDS and not re.fullmatch(r"[0-9]{1,4}[mh]", value, re.ASCII):
        raise click.BadParameter(f"got {value!r}, expected one of {', '.join(_WORDS)}", ctx, param)
    return value


def lifetimes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the words for shell completion."""
    del ctx, param
    return [CompletionItem(word) for word in _WORDS if word.startswith(incomplete)]


@click.command(cls=Command, name="approve", example="attestctl approve 7F3K-9QRT --tool get_current_time --for 8h")
@click.argument("code")
@click.option("--tool", "tools", multiple=True, metavar="NAME", help="Grant this tool (name or glob). Repeatable.")
@click.option("--all-tools", is_flag=True, help="Grant every tool of the server, also those it adds later.")
@click.option("--resource", "resources", multiple=True, metavar="URI", help="Grant this resource. Repeatable.")
@click.option("--prompt", "prompts", multiple=True, metavar="NAME", help="Grant this prompt. Repeatable.")
@click.option(
    "--server-request",
    "server_requests",
    multiple=True,
    metavar="KIND",
    help="Let the server ask the client: sampling, elicitation or roots. Repeatable.",
)
@click.option(
    "--for",
    "lifetime",
    callback=lifetime_word,
    shell_complete=lifetimes,
    default="",
    metavar="|".join(_WORDS),
    help="How long the grant lasts.",
)
@click.option(
    "--program",
    type=click.Choice(["exact", "package", "lineage"]),
    default="exact",
    show_default=True,
    help="Grant this very program, its verified package, or its install lineage through updates.",
)
@click.option(
    "--launched-by",
    multiple=True,
    metavar="any-interactive|DIGEST|unreadable",
    help="Accept this launcher, by 8 or more characters of its digest. Repeatable.",
)
@click.option("--inline", is_flag=True, help="Accept calls that pass through inline code such as sh -c.")
@click.option("--yes", "unattended", is_flag=True, help="Do not ask. Launchers and inline code must then be named.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, code: str, unattended: bool, as_json: bool, **options: Any) -> ExitCode:
    """Grant a refused client what it wants.

    Without options it proposes exactly what the client asked for, shows the caller and the difference from the last
    approved identity, and asks. The default answer is no.
    """
    if not unattended and not sys.stdin.isatty():
        raise UsageError(
            "cannot ask whether to approve: standard input is not a terminal",
            hint=f"run it in a terminal, or say it without being asked: attestctl approve {code} --yes",
        )
    terms = _terms(options)
    client = client_of(ctx)
    detail = client.one(ShowPending(pending=code, terms=terms))
    if unattended:
        _require_named(detail, terms)
    else:
        _show(detail)
        if not click.confirm("Grant this?", default=False, err=True):
            remark("nothing was granted")
            return ExitCode.NOTHING_TO_DO
    for answer in client.stream(Approve(pending=code, terms=terms, shown=detail.proposed.terms)):
        _tell(answer, as_json=as_json)
    return ExitCode.DONE


def _terms(options: dict[str, Any]) -> Terms:
    return Terms(
        tools=options["tools"],
        all_tools=options["all_tools"],
        resources=options["resources"],
        prompts=options["prompts"],
        server_requests=options["server_requests"],
        lifetime=options["lifetime"],
        program=cast("ProgramKind", options["program"]),
        launched_by=options["launched_by"] or None,
        inline=options["inline"],
    )


def _require_named(detail: PendingDetail, terms: Terms) -> None:
    """What a person would have seen and nobody did. Raises UsageError."""
    code, subject = detail.pending.code, detail.proposed.subject
    if subject.launched_by and terms.launched_by is None:
        shown = ", ".join(launcher.display for launcher in detail.pending.caller.launchers)
        named = " ".join(f"--launched-by {program[:16]}" for program in subject.launched_by)
        raise UsageError(f"cannot approve {code} unasked: the client was launched by {shown}", hint=f"add {named}")
    if subject.inline and not terms.inline:
        raise UsageError(f"cannot approve {code} unasked: the client came through inline code", hint="add --inline")
    names_objects = terms.tools or terms.all_tools or terms.resources or terms.prompts or terms.server_requests
    if _EVERYTHING in (detail.proposed.object.tools, detail.proposed.object.resources) and not names_objects:
        raise UsageError(
            f"cannot approve {code} unasked: the client has named no tool yet, so everything would be granted",
            hint="say what to grant: --tool NAME, or --all-tools",
        )


def _show(detail: PendingDetail) -> None:
    from attestd.cli.pending import show  # noqa: PLC0415 - see output

    to = console(sys.stderr)
    show(to, detail.pending)
    if detail.last_approved is not None:
        line(to, "Last approved: ", f"{detail.last_approved.display} (grant {detail.last_approved.id})", "bold")
    for difference in detail.difference:
        line(to, "  - ", difference)
    line(to, "This would be granted:", "", "bold")
    fields(to, grant_pairs(detail.proposed), indent=2)
    for note in detail.notes:
        line(to, "  ! ", note, "yellow")


def _tell(answer: Answer, *, as_json: bool) -> None:
    grant: Grant = answer.value
    if as_json:
        for warning in grant.warnings:
            remark(f"warning: {warning}")
        print_json(answer)
        return
    to = console()
    line(to, "granted ", grant.id, "bold green")
    fields(to, grant_pairs(grant), indent=2)


def grant_pairs(grant: Grant) -> list[tuple[str, str]]:
    """Return labels and values of what a grant allows to whom."""
    subject = grant.subject
    return [
        ("server", grant.object.server),
        *objects(grant.object),
        ("to", grant.display),
        ("program", f"{subject.program_kind} {subject.program}, uid {subject.uid}"),
        *(("launched by", launcher) for launcher in subject.launched_by),
        ("inline", "accepted" if subject.inline else ""),
        ("level", f"at least {grant.min_level}"),
        ("lasts", lasts(grant)),
        *(("warning", warning) for warning in grant.warnings),
    ]


def objects(granted: Object) -> list[tuple[str, str]]:
    """Return what is granted, one pair a kind; ``*`` in words."""
    kinds = (
        ("tools", granted.tools),
        ("resources", granted.resources),
        ("prompts", granted.prompts),
        ("server requests", granted.server_requests),
    )
    return [(kind, f"every one of the {kind}" if "*" in names else ", ".join(names)) for kind, names in kinds if names]


def lasts(grant: Grant) -> str:
    """Return how long a grant lasts, in words."""
    words = {
        "once": "for one call",
        "process": "while this process lives",
        "session": "for this login session",
        "binary": "until the program changes",
        "standing": "until it is revoked",
    }
    if grant.revoked is not None:
        return f"revoked {when(grant.revoked)}"
    return f"until {when(grant.expires)}" if grant.expires is not None else words.get(grant.lifetime, grant.lifetime)
