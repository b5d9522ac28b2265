"""A grant that goes while a call is under way: the call ends with it, within a second."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_client import calling
from tests.support.instance import Client, Instance, cause, running
from tests.support.wire import MODERN_META
from tests.support.wire_attacks import until

AT_ONCE_S = 1.0
PATIENT = '''\
"""An MCP server that answers no call before it is cancelled, and then too late. It writes down what it is told."""
import json, sys

def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()

for line in sys.stdin:
    message = json.loads(line)
    with open(sys.argv[1], "a") as f:
        f.write(line)
    method, params, number = message.get("method"), message.get("params") or {}, message.get("id")
    if method == "initialize":
        say({"id": number, "result": {"protocolVersion": params["protocolVersion"], "serverInfo": {"name": "p", "version": "1"},
                                      "capabilities": {"tools": {}, "resources": {}}}})
    elif method == "server/discover":
        say({"id": number, "result": {"supportedVersions": ["2026-07-28"], "capabilities": {"resources": {"subscribe": True}},
                                      "serverInfo": {"name": "p", "version": "1"}, "resultType": "complete", "ttlMs": 0,
                                      "cacheScope": "private"}})
    elif method == "subscriptions/listen":
        tag = {"_meta": {"io.modelcontextprotocol/subscriptionId": number}}
        say({"method": "notifications/subscriptions/acknowledged", "params": {"notifications": params["notifications"], **tag}})
    elif method == "notifications/cancelled":
        number = params["requestId"]
        tag = {"_meta": {"io.modelcontextprotocol/subscriptionId": number}}
        say({"method": "notifications/resources/updated", "params": {"uri": "file:///a", **tag}})
        say({"id": number, "result": {"content": [{"type": "text", "text": "too late"}]}})
    elif method == "ping":
        say({"id": number, "result": {}})
'''


def patient(instance: Instance, **keys: Any) -> Path:
    """Register the server; where it writes what it is told."""
    heard = instance.root / "heard"
    script = instance.script("patient.py", PATIENT)
    instance.server("patient", command=[sys.executable, str(script), str(heard)], **keys)
    instance.ctl("reload")
    return heard


def told(heard: Path, method: str) -> list[dict[str, Any]]:
    """The messages of one method that reached the server."""
    lines = heard.read_text(encoding="utf-8").splitlines() if heard.exists() else []
    return [message for message in map(json.loads, lines) if message.get("method") == method]


def revoke(instance: Instance, grant: dict[str, Any], client: Client, request_id: int) -> dict[str, Any]:
    """Revoke, and the refusal of what was in flight, which comes within a second of the answer."""
    instance.ctl("grants", "revoke", grant["id"])
    began = time.monotonic()
    refusal = client.answer(request_id, timeout=5)
    assert time.monotonic() - began < AT_ONCE_S
    return refusal


@pytest.mark.parametrize("shared", [False, True])
def test_a_call_under_way_ends(short_tmp: Path, *, shared: bool):
    """Refusal to the client, cancellation to the server by the id that it knows, the late answer on record only."""
    with running(short_tmp) as instance:
        heard = patient(instance, shared=shared)
        grant = instance.grant(server="patient")
        with instance.client(server="patient") as client, instance.client(server="patient") as other:
            client.initialize()
            other.initialize()
            client.send({"jsonrpc": "2.0", "id": 70, "method": "tools/call", "params": {"name": "wait"}})
            until(lambda: told(heard, "tools/call"), "it", 10)
            refusal = revoke(instance, grant, client, 70)
            assert cause(refusal) == "no_grant"
            assert refusal["error"]["data"]["retry"] is False
            until(lambda: told(heard, "notifications/cancelled"), "it", 5)
            (cancelled,) = told(heard, "notifications/cancelled")
            (call,) = told(heard, "tools/call")
            assert cancelled["params"]["requestId"] == call["id"]
            assert (call["id"] == 70) is not shared
            until(lambda: instance.records(kind="result", cause="no_grant"), "it", 5)
            with pytest.raises(TimeoutError):  # neither the late answer nor the notification behind it
                client.receive(0.3)
        denied = instance.records(kind="decision", cause="no_grant", method="tools/call")
        assert [record["verdict"] for record in denied] == ["deny"]
        assert instance.ctl("audit", "verify")[0]["ok"] is True


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_call_under_way_over_http_ends(short_tmp: Path, era: str):
    """The same over HTTP: a call is answered with the refusal, and so is, on its stream, a subscription."""
    with running(short_tmp) as instance:
        heard = patient(instance)
        with calling(instance, str(instance.socket("patient")), server="patient") as client:
            grant = instance.approve(
                client.initialize().json["error"]["data"]["code"], "--resource", "*", "--all-tools"
            )
            if era == "legacy":
                client.initialize()
                client.post({"jsonrpc": "2.0", "id": 70, "method": "tools/call", "params": {"name": "wait"}})
                until(lambda: told(heard, "tools/call"), "it", 10)
            else:
                client.session = ""
                params = {"notifications": {"resourceSubscriptions": ["file:///a"]}, "_meta": MODERN_META}
                listen = {"jsonrpc": "2.0", "id": 70, "method": "subscriptions/listen", "params": params}
                client.post(listen, mcp_protocol_version="2026-07-28", mcp_method="subscriptions/listen")
                client.response(events=1)
            instance.ctl("grants", "revoke", grant["id"])
            answer = client.response(timeout=AT_ONCE_S)
            refusal = answer.json if era == "legacy" else answer.messages[-1]
            assert (refusal["id"], cause(refusal)) == (70, "no_grant")
            until(lambda: told(heard, "notifications/cancelled"), "it", 5)
            assert client.quiet()


def test_a_subscription_stream_ends(short_tmp: Path):
    """A modern listen request is answered with the refusal, its server told, and no frame of it follows."""
    with running(short_tmp) as instance:
        heard = patient(instance)
        grant = instance.grant(None, "--resource", "file:///a", server="patient")
        with instance.client(server="patient") as client:
            assert "result" in client.request("ping")  # so that what follows is younger than the attestation
            params = {"notifications": {"resourceSubscriptions": ["file:///a"]}, "_meta": MODERN_META}
            client.send({"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params})
            acknowledged = client.receive()
            assert acknowledged is not None
            assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
            assert cause(revoke(instance, grant, client, 7)) == "no_grant"
            until(lambda: told(heard, "notifications/cancelled"), "it", 5)
            assert told(heard, "notifications/cancelled")[0]["params"]["requestId"] == 7
            with pytest.raises(TimeoutError):
                client.receive(0.3)


def test_another_ones_grant_is_nothing_to_it(short_tmp: Path):
    """Approving and revoking for another program leaves a call under way alone; a call that used up its own too."""
    with running(short_tmp) as instance:
        heard = patient(instance)
        instance.grant(None, "--tool", "wait", "--for", "once", server="patient")
        with instance.client(server="patient") as client:
            client.initialize()
            client.send({"jsonrpc": "2.0", "id": 70, "method": "tools/call", "params": {"name": "wait"}})
            until(lambda: told(heard, "tools/call"), "it", 10)
            other = instance.grant(instance.talker("another", "another.py"), server="patient")
            instance.ctl("grants", "revoke", other["id"])
            with pytest.raises(TimeoutError):
                client.receive(0.7)
            client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 70}})
            assert cause(client.request("tools/call", {"name": "wait"})) == "no_grant"
        assert len(told(heard, "tools/call")) == 1
