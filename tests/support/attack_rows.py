"""One cell of the matrix of the rows W: one front, one server, every row that applies, and what went wrong.

Where a row does not apply to a cell, ``NOT_APPLICABLE`` says why. Rows that are one message of one client stand in
``attack_variants``; the others, which need two clients or no handshake, are procedures here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from tests.support.attack_backs import BACKS, Back
from tests.support.attack_channels import Answer, Channel
from tests.support.attack_field import Field
from tests.support.attack_variants import Variant

ROWS = tuple(f"W{number}" for number in range(1, 14))
PROCEDURES = ("W8", "W9", "W12")
"""Rows with a procedure; W9 has variants as well."""

NO_HEADERS = "lines have no headers"
NOT_APPLICABLE: dict[tuple[str, str, str], str] = {
    ("W7", "lines-*", "*"): NO_HEADERS,
    ("W7", "*-sse", "*"): "2024-11-05 has no headers that repeat the body",
    ("W11", "lines-*", "*"): NO_HEADERS + ", and no page can open a Unix socket",
    (
        "W12",
        "*-modern",
        "python-http",
    ): "2026-07-28 over HTTP has no sessions: what that process keeps is everybody's, with attestd and without",
    (
        "W12",
        "*",
        "ts2-http",
    ): "the handler of that SDK makes a server for each request: nothing is kept, not even for its owner",
}
"""By row, front and server, with * at an end: why there is nothing to show."""


def reason(row: str, front: str, back: str) -> str:
    """Why the row does not apply; empty if it does."""
    for (one, where, server), why in NOT_APPLICABLE.items():
        if one == row and _fits(where, front) and _fits(server, back):
            return why
    return ""


def _fits(pattern: str, name: str) -> bool:
    head, star, tail = pattern.partition("*")
    return name.startswith(head) and name.endswith(tail) if star else name == pattern


class Cell:
    """One front and one server under attack. ``wrong`` collects what must not be."""

    def __init__(self, field: Field, front: str, back: str) -> None:
        self._field = field
        self.front = front
        self.back: Back = field.backs[back]
        self.wrong: list[str] = []
        self._last = max((record.seq for record in field.records()), default=-1)
        self._owed: Counter[str] = Counter()
        """Causes that were told and so must be on record."""
        self._never: list[tuple[str, str, str, int]] = []
        """What must not be executed: who asked, what the server would note, and how often it had before."""
        self._second: Channel | None = None

    def run(self) -> list[str]:
        """Everything; what went wrong."""
        try:
            with self._field.fresh():
                self._run()
        except AssertionError as error:
            self.wrong.append(f"it ended early: {error}")
        if self.wrong and self.back.serving is not None:
            self.wrong.append(f"{self.back.name} {self.back.serving.condition}")
        return self.wrong

    def _run(self) -> None:
        self.channel = self._field.channel(self.front, self.back.name)
        self.channel.begin()
        for row in ROWS:
            if reason(row, self.front, self.back.name):
                continue
            for variant, mark in self._attacks(row):
                self._offer(self.channel, f"{row} {variant.name}", variant, mark)
            if row in PROCEDURES:
                {"W8": self._no_handshake, "W9": self._of_another, "W12": self._state}[row]()
        self._check()

    def _attacks(self, row: str) -> Iterator[tuple[Variant, str]]:
        """The variants; of those that end their connection before a server is chosen, each server is given its share."""
        found = list(self.channel.attacks(row, self._field.port_of(self.front)))
        ending = [each for each in found if each[0].causes[0].isdigit()]
        share = BACKS.index(self.back.name) % len(ending) if ending else 0
        return (each for each in found if each not in ending or each is ending[share])

    def _offer(self, channel: Channel, name: str, variant: Variant, mark: str) -> None:
        """One attack: refused for one of its causes, and not executed."""
        self._forbid(name, variant.noted[0], variant.noted[1] or mark)
        self._refused(name, channel.offer(variant), variant.causes)

    def _forbid(self, name: str, what: str, text: str) -> None:
        self._never.append((name, what, text, self.back.noted(what, text)))

    def _refused(self, name: str, answer: Answer, causes: tuple[str, ...]) -> None:
        if answer.why not in causes:
            self.wrong.append(f"{name}: {answer} for {answer.why!r}, expected {causes}: {answer.message}")
        elif not answer.why.isdigit():
            self._owed[answer.why] += 1
        else:
            self._field.refused_outside += 1

    def _check(self) -> None:
        """The session goes on, nothing was executed after all, and every refusal is on record."""
        mark = f"{self.channel.name} after"
        answer = self.channel.tool("echo", text=mark)
        if "result" not in answer.message or not self.back.noted("echo", mark):
            self.wrong.append(f"the session does not go on: {answer}: {answer.message}")
        for name, what, text, before in self._never:
            if self.back.noted(what, text) > before:
                self.wrong.append(f"{name}: EXECUTED")
        recorded = Counter(record.cause for record in self._field.records(self._last))
        for cause, times in self._owed.items():
            if recorded[cause] < times:
                self.wrong.append(f"{cause}: {recorded[cause]} on record, expected {times}")

    def _other(self) -> Channel:
        """The other granted client."""
        if self._second is None:
            self._second = self._field.channel(self.front, self.back.name, "other")
            self._second.begin()
        return self._second

    # -- procedures -------------------------------------------------------------------------------------------------

    def _no_handshake(self) -> None:
        """W8: a call that is the first word, of a client that may not make it and of one that may make none."""
        for client, tool, cause in (("client", "steal", "out_of_scope"), ("stranger", "echo", "no_grant")):
            channel = self._field.channel(self.front, self.back.name, client)
            channel.connect()
            mark = f"{channel.name} W8"
            body = json.dumps(channel.words(mark).call(tool)).encode()
            first = Variant(name="first", body=body, causes=(cause,), said=("tools/call", tool), noted=(tool, ""))
            self._offer(channel, f"W8 of {client}", first, mark)
        if channel.kind == "sse":
            channel = self._field.channel(self.front, self.back.name)
            channel.caller.path = channel.caller.path.replace("/sse", "/message?sessionId=none")
            self._refused("W8 without a stream", channel.offer(channel.proper("echo")), ("404",))

    def _of_another(self) -> None:
        """W9: the session of another, and a request of another."""
        if self.channel.era == "modern":
            return
        thief = self._other()
        if thief.kind != "lines":
            own = thief.caller.session, thief.caller.path
            thief.caller.session, thief.caller.path = self.channel.caller.session, self.channel.caller.path
            mark = f"{thief.name} W9"
            stolen = thief.proper("echo", text=mark)
            self._forbid("W9 session", "echo", mark)
            self._refused("W9 session", thief.offer(stolen), ("404",))
            thief.caller.session, thief.caller.path = own
        mark = f"{self.channel.name} slow"
        call = self.channel.proper("slow", seconds=0.1, text=mark)
        self.channel.start(call)
        thief.tell("notifications/cancelled", requestId=json.loads(call.body)["id"])
        self._owed["not_outstanding"] += 1
        answer = self.channel.finish()
        if "result" not in answer.message or not self.back.noted("slow", mark):
            self.wrong.append(f"W9 request: cancelled by another: {answer}: {answer.message}")

    def _state(self) -> None:
        """W12: what one client left is there for it, and for nobody else."""
        other = self._other()
        secret = f"{self.channel.name} secret"
        self.channel.tool("remember", text=secret)
        if secret not in str(self.channel.tool("recall").message):
            self.wrong.append("W12: the owner's own state is gone")
        if secret in str(told := other.tool("recall").message) or "result" not in told:
            self.wrong.append(f"W12: another was told {told}")
