"""A client that is refused for hours leaves numbers in the audit log, not a record for each refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.instance import Instance, cause, running

SINGLY = 3
LOOPS = 150


def times(records: list[dict[str, Any]]) -> int:
    """How many refusals these records speak of."""
    return sum(int(record["detail"].get("times", 1)) for record in records)


def denied(instance: Instance, **wanted: str) -> list[dict[str, Any]]:
    """The refusals on record."""
    return instance.records(verdict="deny", **wanted)


def test_a_client_that_is_refused_in_a_loop(short_tmp: Path):
    """The first few singly, the others as one exact number when the session ends; permits one by one; the log holds."""
    with running(short_tmp, limits={"refusals_per_minute": SINGLY}) as instance:
        instance.grant(None, "--tool", "echo")
        before = len(denied(instance))
        with instance.client() as client:
            client.initialize()
            for number in range(LOOPS):
                refusal = client.call("pid")
                assert cause(refusal) == "out_of_scope"
                assert refusal["error"]["data"]["code"]
                if number % 10 == 0:
                    assert "result" in client.call("echo")
            stands = refusal["error"]["data"]["decision"]
            while_open = denied(instance, name="pid")
            assert len(while_open) == SINGLY
            assert stands == while_open[-1]["id"]
            assert instance.ctl("explain", stands)[0]["cause"] == "out_of_scope"
        session = while_open[0]["session"]
        closed = instance.records(kind="session", method="close", session=session)
        assert closed[0]["detail"]["denials"] == LOOPS
        records = denied(instance, name="pid")
        assert len(records) == SINGLY + 1
        assert times(records) == LOOPS
        assert records[-1]["detail"]["like"] == stands
        assert len(denied(instance)) == before + SINGLY + 1
        assert len(instance.records(verdict="permit", name="echo")) == LOOPS // 10
        assert instance.ctl("audit", "verify")[0]["ok"] is True
        shown = instance.run("attestctl", "audit", "tail", "--lines", "100").stdout
        assert f"times={LOOPS - SINGLY}" in shown
        assert len(instance.ctl("audit", "query", "--verdict", "deny", "--cause", "out_of_scope")) == SINGLY + 1


def test_ever_new_names_in_a_loop(short_tmp: Path):
    """Whatever the client thinks up as names, the number of records is bounded, and the count is exact after a stop."""
    with running(short_tmp, limits={"refusals_per_minute": SINGLY}) as instance:
        with instance.client() as client:
            client.initialize()
            for number in range(LOOPS):
                assert cause(client.call(f"tool {number}")) == "no_grant"
            assert instance.stop() == 0
        log = instance.state / "audit"
        verified = instance.run("attestctl", "audit", "verify", "--directory", str(log), "--json")
        assert json.loads(verified.stdout)["ok"] is True
        instance.start()
        records = denied(instance, cause="no_grant", kind="decision")
        assert len(records) < 40
        assert times(records) == LOOPS + 1


def test_wrong_codes_in_a_loop(short_tmp: Path):
    """What is refused outside sessions is counted too, for each user."""
    with running(short_tmp, limits={"refusals_per_minute": SINGLY}) as instance:
        for _ in range(2 * SINGLY):
            result = instance.run("attestctl", "approve", "AAAA-AAAA", "--yes", "--all-tools", "--for", "standing")
            assert result.returncode == 4, result.stderr
        assert instance.stop() == 0
        instance.start()
        records = denied(instance, kind="admin", cause="bad_code")
        assert len(records) == SINGLY + 1
        assert times(records) == 2 * SINGLY
