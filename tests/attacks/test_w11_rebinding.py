"""W11: a page of a rebinding site, and an address that is not this machine's own."""

from __future__ import annotations

import psutil
import pytest

from tests.support.http_client import ON_TCP, PLACES, Booth, calling

pytestmark = pytest.mark.attack("W11")


@ON_TCP
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}", ""]
)
def test_a_foreign_host(http: Booth, host: str):
    """403 before anything else, whoever asks; the same call under our own name runs."""
    mark = f"host{host}"
    with calling(http.instance, http.at("tcp")) as caller:
        caller.initialize()
        assert caller.call(mark=f"{mark}own").status == 200
        body = {
            "jsonrpc": "2.0",
            "id": 9,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"mark": mark}},
        }
        assert caller.ask(body, host=host.format(port=http.port)).status == 403
        assert caller.until_ended() == b""
    assert f"{mark}own" in http.marks()
    assert mark not in http.marks()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost.evil", "https://127.0.0.1:{port}"]
)
def test_a_foreign_origin(http: Booth, place: str, origin: str):
    """A browser says whose page asks."""
    with calling(http.instance, http.at(place)) as caller:
        assert caller.request("initialize", {}, origin=origin.format(port=http.port)).status == 403


@ON_TCP
def test_the_services_own_names(http: Booth):
    """Localhost and its addresses with the port; a page of our own origin."""
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        with calling(http.instance, http.at("tcp")) as caller:
            host = f"{name}:{http.port}"
            assert caller.request("ping", host=host, origin=f"http://{host}").status == 200


def test_it_listens_on_loopback_only(http: Booth):
    """No setting binds another address; these are all the sockets that the daemon listens on."""
    assert http.instance.process is not None
    daemon = psutil.Process(http.instance.process.pid)
    listening = [each.laddr for each in daemon.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
    assert {address.port for address in listening} == ({http.port} if http.port else set())
