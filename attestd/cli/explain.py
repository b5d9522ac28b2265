"""``attestctl explain``: one decision again. Its drawing also serves ``why``."""

from __future__ import annotations

import click

from attestd.cli.command import Command, client_of, json_option
from attestd.cli.output import ask, console, fields, line, when
from attestd.control.messages import Explain
from attestd.control.replies import Explanation


@click.command(cls=Command, name="explain", example="attestctl explain d-1")
@click.argument("decision")
@json_option
@click.pass_context
def command(ctx: click.Context, decision: str, as_json: bool) -> None:
    """Show the reasons of one decision.

    Inputs, clauses, and what would have to change for the other verdict.
    DECISION is the id in a refusal or in the audit.
    """
    for explanation in ask(client_of(ctx), Explain(decision=decision), as_json=as_json):
        if not as_json:
            show(explanation)


def show(explanation: Explanation) -> None:
    """Print inputs, clauses and what would change the verdict."""
    to = console()
    permitted = explanation.verdict == "permit"
    asked = f"{explanation.method} {explanation.name}".rstrip()
    line(
        to,
        "permit" if permitted else "deny",
        f"  {asked} on {explanation.server}",
        "bold green" if permitted else "bold red",
    )
    fields(
        to,
        [
            ("decision", explanation.decision),
            ("time", when(explanation.time) if explanation.time else ""),
            ("caller", explanation.caller.display),
            ("cause", f"{explanation.cause} {explanation.detail}".strip()),
            ("policies", ", ".join(explanation.policies)),
            ("grants", ", ".join(explanation.grants)),
            ("policy", f"generation {explanation.generation}, mode {explanation.mode}" if explanation.mode else ""),
            *(("input", f"{name} = {value}") for name, value in explanation.inputs.items()),
        ],
        indent=2,
    )
    for clause in explanation.clauses:
        mark, style = ("[holds]", "green") if clause.holds else ("[fails]", "red")
        line(to, f"  {mark} ", f"{clause.id}: {clause.text}", style)
    for change in explanation.changes:
        line(to, "  to change it: ", change)
