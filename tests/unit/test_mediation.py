"""The path of one call: what each step does, and that nothing skips one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from attestd.appraisal.appraiser import Appraiser
from attestd.appraisal.model import LinkClass
from attestd.audit.refusals import SINGLY
from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import InputHolders
from attestd.mediation import (
    APPROVABLE,
    ENDING,
    TRANSIENT,
    Forward,
    Hold,
    Malformed,
    Mediator,
    Refuse,
    Reply,
    attest,
)
from attestd.wire.model import CallRequest, Message, Target, WireError
from tests.fakes.kernel import OneProcess
from tests.fakes.mediation import CODE, PEER, MemoryAudit, ScriptedCaller, StoppedClock
from tests.support.evidence import (
    NAMING,
    REFERENCES,
    evidence_of,
    evil,
    python_client,
    shell,
    shim,
    shipped_table,
    terminal,
)
from tests.support.results import make_result
from tests.support.wire import ABSENT, call, parsed

ECHO = ("call_tool", "echo")


class Bench:
    """A mediator with its caller and log."""

    def __init__(self, *allowed: tuple[str, str], **result: Any) -> None:
        self.caller = ScriptedCaller(*allowed, result=make_result(**result) if result else None)
        self.audit = MemoryAudit()
        self.mediator = Mediator(self.caller, self.audit)
        self.clock = StoppedClock()
        self.misplaced: tuple[Cause, str] | None = None
        self.proven = True

    def ask(self, parse: CallRequest | Message | Exception, writer_pid: int = PEER) -> Any:
        """One message through steps 3 to 7."""

        def parsing() -> CallRequest | Message:
            if isinstance(parse, Exception):
                raise parse
            return parse

        return self.mediator.request(
            parsing,
            writer_pid=writer_pid,
            place=lambda _request: self.misplaced,
            proven=lambda _request: self.proven,
            clock=self.clock,
        )


def echo() -> CallRequest:
    """A call of the granted tool."""
    return call("tools/call", {"name": "echo", "arguments": {"a": 1}})


# -- 1 and 2: attest ------------------------------------------------------------------------------------------------


def appraiser() -> Appraiser:
    """The shipped table."""
    return Appraiser(table=shipped_table(), references=REFERENCES, naming=NAMING)


def test_attest_collects_appraises_and_pins_the_accountable_client():
    """A direct caller is its own accountable client, and the watch is told so and kept open."""
    kernel = OneProcess(evidence_of(python_client(), shell(), terminal()))
    attested = attest(kernel, 3, kernel.evidence.peer, appraiser())
    assert not attested.relayed
    assert kernel.watches[0].pinned == [attested.result.accountable] == [0]
    assert kernel.open == 1


def test_a_relay_brings_its_standard_input_along():
    """Behind our shim, whoever holds the other end of its input is part of the evidence."""
    evidence = evidence_of(shim(), python_client(), shell(), terminal())
    kernel = OneProcess(evidence, InputHolders(kind="pipe", pids=(evidence.chain[1].pid,), complete=True))
    attested = attest(kernel, 3, evidence.peer, appraiser())
    assert attested.relayed
    assert attested.evidence.input == kernel.holders
    assert kernel.watches[0].pinned == [1]


def test_a_failed_appraisal_releases_the_watch():
    """Whatever goes wrong after the collection, no descriptor is left open."""
    evidence = evidence_of(shim(), python_client(), shell(), terminal())
    kernel = OneProcess(evidence, EvidenceError(Cause.PEER_GONE, "it has gone"))
    with pytest.raises(EvidenceError):
        attest(kernel, 3, evidence.peer, appraiser())
    assert kernel.open == 0


def test_a_program_that_is_no_relay_is_not_taken_for_one():
    """Only the reference values make a relay."""
    kernel = OneProcess(evidence_of(evil("/home/dev/attestd-connect"), shell(), terminal()))
    attested = attest(kernel, 3, kernel.evidence.peer, appraiser())
    assert attested.result.classes[0] is not LinkClass.RELAY


# -- 3 to 7 ---------------------------------------------------------------------------------------------------------


def test_a_permitted_call_is_recorded_and_then_forwarded():
    """The decision is in the log with everything it was made of, the use is counted, and the request is forwarded."""
    bench = Bench(ECHO)
    outcome = bench.ask(echo())
    assert isinstance(outcome, Forward)
    (entry,) = bench.audit.entries
    assert (entry.kind, entry.id, entry.session, entry.server) == ("decision", outcome.decision, "s1", "time")
    assert (entry.method, entry.name, entry.verdict, entry.cause) == ("tools/call", "echo", "permit", "")
    assert (entry.policies, entry.generation, entry.mode) == (("grant:echo",), 3, "user")
    assert (entry.caller, entry.uid, entry.pid, entry.latency_ns) == ("c0ffee", 1000, PEER, 1500)
    assert entry.args_sha256 == bench.audit.digest_arguments(b'{"a":1}')
    assert bench.caller.used == [("echo",)]


def test_a_denied_call_is_recorded_and_refused_with_a_code():
    """The refusal says who, what, why and what to do; nothing is counted as used."""
    bench = Bench()
    outcome = bench.ask(echo())
    assert isinstance(outcome, Refuse)
    refusal = outcome.refusal
    assert (refusal.cause, refusal.code, refusal.retry, outcome.end) == (Cause.OUT_OF_SCOPE, CODE, True, False)
    assert refusal.decision == bench.audit.entries[0].id
    assert "client.py (L2, sha256 abababab…, via zsh)" in refusal.text
    assert f"attestctl approve {CODE}" in refusal.text
    assert bench.caller.used == []
    assert bench.audit.entries[0].detail == {"why": "the grant does not name this tool"}


def test_a_plain_detail_is_recorded_but_not_repeated():
    """A detail that says what the cause says stands in the log and not in the text."""
    bench = Bench()
    bench.caller.admitted = False
    outcome = bench.ask(call("tools/list", {}))
    assert outcome.refusal.text.splitlines()[0] == (
        'attestd refused tools/list on "time": no grant for client.py (L2, sha256 abababab…, via zsh).'
    )
    assert bench.audit.entries[0].detail == {"why": "no grant for this program on this server"}


def test_every_target_must_be_permitted():
    """One target that is not permitted refuses the whole; two permits are counted together."""
    listen = {"notifications": {"resourceSubscriptions": ["file:///a", "file:///b"]}}
    request = call("subscriptions/listen", listen, modern=True)
    bench = Bench(("subscribe", "file:///a"))
    assert isinstance(bench.ask(request), Refuse)
    bench.caller.allowed.add(("subscribe", "file:///b"))
    assert isinstance(bench.ask(request), Forward)
    assert bench.caller.used == [("file:///a", "file:///b")]
    assert bench.audit.entries[-1].policies == ("grant:file:///a", "grant:file:///b")


def test_a_request_without_targets_is_denied():
    """No target is not "every target": nothing was permitted, so nothing is forwarded."""
    bench = Bench(ECHO)
    empty = msgspec.structs.replace(echo(), targets=())
    assert not isinstance(bench.ask(empty), Forward)


@pytest.mark.parametrize("cause", sorted(ENDING))
def test_a_changed_caller_is_refused_before_any_decision(cause: Cause):
    """Step 4 comes before step 5, and its causes end the session."""
    bench = Bench(ECHO)
    bench.caller.changed = cause
    outcome = bench.ask(echo())
    assert isinstance(outcome, Refuse)
    assert (outcome.refusal.cause, outcome.end) == (cause, True)
    assert outcome.refusal.code is None
    assert bench.caller.asked == 0


def test_a_foreign_writer_is_refused():
    """Bytes of another pid are not the caller's."""
    outcome = Bench(ECHO).ask(echo(), writer_pid=1)
    assert (outcome.refusal.cause, outcome.end) == (Cause.WRITER_MISMATCH, True)


def test_what_is_out_of_place_is_refused_after_the_decision():
    """A permitted request that names what is not there is refused, with the session's reason."""
    bench = Bench(ECHO)
    bench.misplaced = (Cause.NOT_FOUND, "no such task")
    outcome = bench.ask(echo())
    assert (outcome.refusal.cause, outcome.refusal.code, outcome.refusal.retry) == (Cause.NOT_FOUND, None, False)
    assert bench.caller.used == []


def test_an_unproven_effect_is_held_and_not_recorded_as_permitted():
    """Nothing happened yet, so nothing is used up and nothing is in the log; what has no effect needs no proof."""
    bench = Bench(ECHO)
    bench.proven = False
    assert isinstance(bench.ask(echo()), Hold)
    assert bench.audit.entries == []
    assert bench.caller.used == []
    assert isinstance(bench.ask(call("tools/list", {})), Forward)


def test_a_response_is_handed_to_the_session():
    """Responses are no calls: they are matched by the session."""
    message = parsed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    outcome = Bench().ask(message)
    assert isinstance(outcome, Reply)
    assert outcome.message is message


def test_a_response_of_a_changed_caller_is_stray():
    """A response is checked as a call is, recorded, and not answered."""
    bench = Bench()
    bench.caller.changed = Cause.CHAIN_CHANGED
    outcome = bench.ask(parsed(b'{"jsonrpc":"2.0","id":1,"result":{}}'))
    assert isinstance(outcome, Refuse)
    assert (outcome.answer, outcome.end) == (False, True)
    assert bench.audit.causes() == ["chain_changed"]


def test_a_wire_error_is_recorded_and_told():
    """What does not parse is answered as the error says."""
    bench = Bench()
    error = WireError(Cause.TOO_DEEP, "it nests too deep", request_id=4)
    outcome = bench.ask(error)
    assert isinstance(outcome, Malformed)
    assert outcome.error is error
    assert (bench.audit.entries[0].id, bench.audit.causes()) == (outcome.decision, ["too_deep"])


def test_a_refused_notification_is_not_answered():
    """There is no id to answer on."""
    bench = Bench()
    bench.caller.admitted = False
    outcome = bench.ask(call("notifications/initialized", {}, ABSENT))
    assert (outcome.answer, outcome.request_id) == (False, None)


# -- our own bugs, and a full disk ----------------------------------------------------------------------------------


def test_a_bug_denies():
    """An unexpected exception in a decision is Deny(internal) with its name, never a forward."""
    bench = Bench(ECHO)
    bench.caller.broken = ZeroDivisionError("oops")
    outcome = bench.ask(echo())
    assert isinstance(outcome, Refuse)
    assert outcome.refusal.cause is Cause.INTERNAL
    assert bench.audit.entries[-1].detail == {"why": "ZeroDivisionError: oops"}


def test_a_bug_in_parsing_denies():
    """So is one before there is a request."""
    outcome = Bench(ECHO).ask(RuntimeError("parser"))
    assert isinstance(outcome, Malformed)
    assert (outcome.error.cause, outcome.error.rpc_code) == (Cause.INTERNAL, -32603)


def test_a_bug_on_a_full_disk_denies_too():
    """Neither failure hides the other: nothing is forwarded."""
    bench = Bench(ECHO)
    bench.caller.broken = ZeroDivisionError("oops")
    bench.audit.full = True
    assert bench.ask(echo()).refusal.cause is Cause.AUDIT_UNAVAILABLE


@pytest.mark.parametrize("allowed", [True, False])
def test_without_a_record_there_is_no_effect(allowed: bool):
    """If the decision cannot be recorded the request is refused, and may be tried again."""
    bench = Bench(*((ECHO,) if allowed else ()))
    bench.audit.full = True
    outcome = bench.ask(echo())
    assert (outcome.refusal.cause, outcome.refusal.retry) == (Cause.AUDIT_UNAVAILABLE, True)
    assert bench.caller.used == []


def test_garbage_on_a_full_disk_is_still_answered():
    """A parse error needs no record to be told."""
    bench = Bench()
    bench.audit.full = True
    outcome = bench.ask(WireError(Cause.MALFORMED, "no"))
    assert isinstance(outcome, Malformed)
    assert outcome.decision == ""
    stray = bench.mediator.stray(parsed(b'{"jsonrpc":"2.0","id":1,"result":{}}'), Cause.NOT_OUTSTANDING, bench.clock)
    assert isinstance(stray, Refuse)
    refused = bench.mediator.refuse(echo(), Cause.UNPROVEN, "", bench.clock)
    assert isinstance(refused, Refuse)
    assert refused.refusal.cause is Cause.AUDIT_UNAVAILABLE


# -- 8 --------------------------------------------------------------------------------------------------------------


def test_a_server_request_is_recorded_either_way():
    """A hop is in the log with its verdict; the refused one waits for approval, the permitted one is counted."""
    bench = Bench()
    asked = Target(action="elicit", kind="server", name="")
    assert not bench.mediator.server_request(asked, "elicitation/create", bench.clock)
    bench.caller.allowed.add(("elicit", ""))
    assert bench.mediator.server_request(asked, "elicitation/create", bench.clock)
    assert [(e.kind, e.method, e.verdict) for e in bench.audit.entries] == [
        ("hop", "elicitation/create", "deny"),
        ("hop", "elicitation/create", "permit"),
    ]
    assert bench.caller.pended == [("elicitation/create", "", Cause.SERVER_REQUEST)]
    bench.audit.full = True
    assert not bench.mediator.server_request(asked, "elicitation/create", bench.clock)


def test_a_result_is_recorded_under_its_decision():
    """Size, time and outcome of what came back stand beside the decision."""
    bench = Bench(ECHO)
    decision = bench.ask(echo()).decision
    later = bench.clock.later(2_000_000)
    bench.mediator.result(decision, "tools/call", verdict="ok", size=77, started_ns=bench.clock.now_ns, clock=later)
    entry = bench.audit.entries[-1]
    assert (entry.kind, entry.id, entry.verdict, entry.latency_ns) == ("result", decision, "ok", 2_000_000)
    assert entry.detail == {"bytes": 77}


def test_items_of_lists_are_decided_without_a_record():
    """The list itself was recorded; its items are only looked at."""
    bench = Bench(ECHO)
    assert bench.mediator.allows(Target(action="call_tool", kind="tool", name="echo"), 0)
    assert not bench.mediator.allows(Target(action="call_tool", kind="tool", name="other"), 0)
    assert bench.audit.entries == []


def test_the_sets_of_causes_do_not_overlap():
    """A cause is lifted by approval, by time or by nothing; those that end a session by neither."""
    assert not APPROVABLE & TRANSIENT
    assert not ENDING & (APPROVABLE | TRANSIENT)


def test_decisions_are_numbered_within_the_session():
    """Each recorded decision has an id of its own that names its session."""
    bench = Bench(ECHO)
    ids = [bench.ask(echo()).decision for _ in range(3)]
    assert ids == ["s1.1", "s1.2", "s1.3"]


def test_names_are_bounded_in_the_log():
    """However long a name is, the record stays small; the decision saw all of it."""
    bench = Bench()
    request = call("resources/read", {"uri": "file:///" + "a" * 4000})
    bench.ask(request)
    assert len(bench.audit.entries[0].name) == 1024


def test_only_a_permit_permits(monkeypatch: pytest.MonkeyPatch):
    """A verdict that is neither Permit nor Deny is our bug, and denies."""
    bench = Bench(ECHO)
    monkeypatch.setattr(bench.caller, "decide", lambda _target, _request, _now_ns: None)
    assert bench.ask(echo()).refusal.cause is Cause.INTERNAL


def test_refusals_in_a_loop_are_counted_and_permits_are_not():
    """After the first few, the answer names the record that stands for it; every permit is a record of its own."""
    bench = Bench(("call_tool", "echo"))
    decisions = []
    for _ in range(50):
        refused = bench.ask(call("tools/call", {"name": "delete"}))
        assert isinstance(refused, Refuse)
        decisions.append(refused.refusal.decision)
        assert isinstance(bench.ask(echo()), Forward)
    assert len(set(decisions)) == SINGLY
    assert set(decisions) <= {entry.id for entry in bench.audit.entries}
    assert bench.mediator.settle(bench.clock.now_ns, end=True) == 0
    denied = [entry for entry in bench.audit.entries if entry.verdict == "deny"]
    assert sum(int(entry.detail.get("times", 1)) for entry in denied) == 50
    assert len(denied) == SINGLY + 1
    assert len([entry for entry in bench.audit.entries if entry.verdict == "permit"]) == 50
    assert len({entry.id for entry in bench.audit.entries}) == len(bench.audit.entries)


def test_refusals_that_cannot_be_recorded_are_said_to_be():
    """The number that the end could not write."""
    bench = Bench()
    for _ in range(SINGLY + 5):
        bench.ask(echo())
    bench.audit.full = True
    assert bench.mediator.settle(bench.clock.now_ns, end=True) == 5
    bench.audit.full = False
    assert bench.mediator.settle(bench.clock.now_ns, end=True) == 0
