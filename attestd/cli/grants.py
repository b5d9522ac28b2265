"""``attestctl grants``: list, show, revoke, renew."""

from __future__ import annotations

import click

from attestd.cli.approve import grant_pairs, lasts, lifetime_word, lifetimes, objects
from attestd.cli.command import Command, LazyGroup, client_of, json_option
from attestd.cli.output import ask, console, fields, line, remark, table, when
from attestd.control.messages import ListGrants, RenewGrant, RevokeGrants, ShowGrant
from attestd.control.replies import Grant
from attestd.control.times import duration


@click.group(cls=LazyGroup, name="grants", example="attestctl grants list --unused 30d")
def command() -> None:
    """See and end what clients may do."""


@command.command(cls=Command, name="list", example="attestctl grants list --unused 30d")
@click.option("--server", metavar="NAME", help="Only grants on this server.")
@click.option("--unused", metavar="SPAN", help="Only grants that nothing has used for so long, such as 30d.")
@click.option("--all", "ended", is_flag=True, help="Also expired and revoked grants.")
@json_option
@click.pass_context
def list_grants(ctx: click.Context, server: str | None, unused: str | None, ended: bool, as_json: bool) -> None:
    """List grants and their use.

    How often each was used, and when last: what nobody uses can be revoked.
    """
    request = ListGrants(server=server, unused_s=duration(unused) if unused else None, ended=ended)
    found = ask(client_of(ctx), request, as_json=as_json)
    if not found:
        remark("no grant matches")
    elif not as_json:
        headings = ("grant", "server", "to", "what", "lasts", "used", "last use")
        table(console(), headings, map(_row, found))


def _row(grant: Grant) -> tuple[str, ...]:
    what = "; ".join(f"{kind} {names}" for kind, names in objects(grant.object))
    to = grant.display.partition(" | ")[0].partition(" · ")[0]
    return (grant.id, grant.object.server, to, what, lasts(grant), str(grant.hits), when(grant.last_used))


@command.command(cls=Command, name="show", example="attestctl grants show g-1 --json")
@click.argument("grant")
@json_option
@click.pass_context
def show(ctx: click.Context, grant: str, as_json: bool) -> None:
    """Show one grant.

    To whom, for what, since when, approved by whom.
    """
    for found in ask(client_of(ctx), ShowGrant(grant=grant), as_json=as_json):
        if not as_json:
            _show(found)


def _show(grant: Grant) -> None:
    to = console()
    line(to, "grant ", grant.id, "bold")
    approved = f"{grant.approved_by} ({grant.how}) from {grant.origin}"
    use = f"{grant.hits} times, last {when(grant.last_used)}"
    since = [("created", when(grant.created))] if grant.created else []
    fields(to, [*grant_pairs(grant), *since, ("approved by", approved), ("used", use)], indent=2)


@command.command(cls=Command, name="revoke", example="attestctl grants revoke g-1")
@click.argument("grants", nargs=-1, required=True)
@json_option
@click.pass_context
def revoke(ctx: click.Context, grants: tuple[str, ...], as_json: bool) -> None:
    """End grants now.

    Sessions that live on them end within a second. All of them are revoked, or none.
    """
    for grant in ask(client_of(ctx), RevokeGrants(grants=grants), as_json=as_json):
        if not as_json:
            line(console(), "revoked ", f"{grant.id}: {grant.display} on {grant.object.server}")


@command.command(cls=Command, name="renew", example="attestctl grants renew g-1 --for 8h")
@click.argument("grant")
@click.option(
    "--for",
    "lifetime",
    callback=lifetime_word,
    shell_complete=lifetimes,
    required=True,
    metavar="15m|1h|8h",
    help="How long from now.",
)
@json_option
@click.pass_context
def renew(ctx: click.Context, grant: str, lifetime: str, as_json: bool) -> None:
    """Let a grant that ends at a time end later."""
    for renewed in ask(client_of(ctx), RenewGrant(grant=grant, lifetime=lifetime), as_json=as_json):
        if not as_json:
            line(console(), "renewed ", f"{renewed.id}: lasts {lasts(renewed)}")
