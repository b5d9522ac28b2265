"""The servers of the rows W without attestd: what each of them does with each variant of an attack, if nobody is between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.attack_backs import Back, Piped, await_true
from tests.support.attack_channels import Answer, Channel, Http, Lines, Sse
from tests.support.attack_variants import Variant
from tests.support.http_client import Caller

EXECUTED = "executed"


class Behind:
    """Adds a proper request behind each variant: its answer tells when one to the variant would have come."""

    patient = True
    """Whether an answer to the variant is awaited, too."""

    def awaited(self: Any, sent: dict[str, Any], number: int) -> dict[str, Any]:
        """The answer to the variant, which has this number or none; empty if there is none."""
        answer: dict[str, Any] = {}
        behind = False
        while not behind or (self.patient and not answer):
            message = self.receive()
            behind = behind or message.get("id") == sent["id"]
            if message.get("id") in {None, number, number - 1}:
                answer = message
        return answer


class DirectLines(Behind, Lines):
    """Lines that may stay without an answer."""

    def finish(self) -> Answer:
        number = self._number
        behind = self.words().harmless(before=False)
        self.caller.send(json.dumps(behind).encode() + b"\n", self.connection)
        return Answer(message=self.awaited(behind, number))


class DirectSse(Behind, Sse):
    """The same for posts whose answers come on a stream."""

    def finish(self) -> Answer:
        number = self._number
        response = self.caller.response(self.connection)
        self._renew(response)
        if response.status != 202:
            return Answer(status=response.status)
        behind = self.words().harmless(before=False)
        self.caller.post(behind, self.connection)
        assert self.caller.response(self.connection).status == 202
        return Answer(status=202, message=self.awaited(behind, number))


@contextlib.contextmanager
def direct(
    back: Back, era: str, process: Caller, root: Path, mark: str = "", *, begin: bool = True
) -> Iterator[Channel]:
    """A client on the server itself, past its handshake unless ``begin`` is false."""
    name = f"{back.name} {era} {mark}"
    if back.kind == "stdio":
        piped = Piped(back, root / f"{back.name}-{era}{mark}.sock")
        try:
            channel: Channel = DirectLines(process, str(piped.path), name, era)
            channel.connect()
            piped.accept()
            if begin:
                channel.begin()
            yield channel
        finally:
            piped.close()
        return
    place, host = ("127.0.0.1", back.port), f"127.0.0.1:{back.port}"
    channel = Http(process, place, name, era, "/mcp", host)
    if back.kind == "sse":
        channel = DirectSse(process, place, name, "/sse", host)
    if begin:
        channel.begin()
    else:
        channel.connect()
    yield channel


def outcome(back: Back, channel: Channel, variant: Variant, mark: str, expected: str) -> str:
    """Offer it: ``executed``, or what was said. ``expected`` tells only what is worth waiting for."""
    what, text = variant.noted[0], variant.noted[1] or mark
    before = back.noted(what, text)
    if isinstance(channel, Behind):
        channel.patient = expected not in {"silence", "202"}
    answer = channel.offer(variant)
    if expected == EXECUTED:
        await_true(lambda: back.noted(what, text) > before, f"{back.name} executes {variant.name}")
    return EXECUTED if back.noted(what, text) > before else str(answer)
