from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from pyroute2.netlink.diag import inet_diag_msg, inet_diag_req

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux.tcp import diag as diag_module
from attestd.kernel.linux.tcp.diag import Diag, Ends, accept_answer, ends_of, is_open, request

ENDS = Ends(socket.AF_INET, 40000, 80, bytes([127, 0, 0, 1]).ljust(16, b"\0"), bytes([127, 0, 0, 2]).ljust(16, b"\0"))
OWN_ADDRESS = "127.77.88.99"
"""Where nobody else on this machine takes a port that has just become free."""
KINDS = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.1 to both"]


@pytest.fixture(name="diag")
def _diag() -> Iterator[Diag]:
    with contextlib.closing(Diag()) as made:
        yield made


@contextlib.contextmanager
def connected(kind: str = "127.0.0.1", source: str = "") -> Iterator[tuple[socket.socket, socket.socket]]:
    """An accepted socket and its client, over IPv4, IPv6, or both mixed."""
    address = kind.partition(" ")[0]
    if kind in {"127.0.0.1", "::1"}:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.create_server((address, 0), family=family)
    else:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with server, socket.socket(family) as client:
        if source:
            client.bind((source, 0))
        client.connect((address, server.getsockname()[1]))
        accepted, _ = server.accept()
        with accepted:
            yield accepted, client


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


def answer(**changes: int | bytes) -> bytes:
    fields = {"state": 1, "port": 40000, "our_port": 80, "cookie": 5, "uid": 6, "inode": 7, "address": ENDS.address}
    fields.update(changes)
    body = struct.pack("=BBBB", socket.AF_INET, fields["state"], 0, 0)
    body += struct.pack(">HH", fields["port"], fields["our_port"]) + fields["address"] + ENDS.our_address
    body += struct.pack("=IQIIIII", 0, fields["cookie"], 0, 0, 0, fields["uid"], fields["inode"])
    return struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body


@pytest.mark.parametrize("kind", KINDS)
def test_the_clients_socket_is_found(diag: Diag, kind: str):
    """Its inode, uid and cookie, for every mixture of families."""
    with connected(kind) as (accepted, client):
        found = diag.client(accepted)
        assert (found.inode, found.uid) == (os.fstat(client.fileno()).st_ino, os.getuid())
        assert found.cookie == cookie(client)


def test_the_layouts_are_those_of_pyroute2():
    """Our request is its request, and its reading of an answer is ours."""
    theirs = inet_diag_req()
    theirs.update({"sdiag_family": 2, "sdiag_protocol": 6, "idiag_states": 0xFFFFFFFF, "idiag_cookie": 2**64 - 1})
    theirs.update({"idiag_sport": 40000, "idiag_dport": 80})
    theirs.update({"idiag_src": (0x7F000001, 0, 0, 0), "idiag_dst": (0x7F000002, 0, 0, 0)})
    theirs.encode()
    assert request(ENDS, 1)[16:] == bytes(theirs.data)[16:]
    message = inet_diag_msg(answer())
    message.decode()
    found = accept_answer(answer(), ENDS)
    assert found is not None
    assert found == (message["idiag_cookie"], message["idiag_uid"], message["idiag_inode"], message["idiag_state"])
    assert (message["idiag_src"], message["idiag_sport"]) == ("127.0.0.1", 40000)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"inode": 0, "uid": 0}, id="no process has it, and its uid reads as root"),
        pytest.param({"state": 10, "our_port": 0}, id="a listener on the client's port"),
        pytest.param({"state": 2}, id="somebody tries to connect from the client's port"),
        pytest.param({"state": 6}, id="waiting for late packets"),
        pytest.param({"port": 40001}, id="another port"),
        pytest.param({"address": bytes([127, 0, 0, 9]).ljust(16, b"\0")}, id="another address"),
    ],
)
def test_other_sockets_are_no_client(changes: dict[str, int | bytes]):
    """The kernel answers an exact query with what is nearest."""
    assert accept_answer(answer(**changes), ENDS) is None
    assert accept_answer(answer()[:60], ENDS) is None


def test_a_client_that_has_closed_is_gone(diag: Diag):
    """Its socket lingers without a process; uid 0 is never believed."""
    with connected() as (accepted, client):
        client.close()
        with pytest.raises(EvidenceError) as caught:
            diag.client(accepted)
    assert caught.value.cause is Cause.PEER_GONE


def test_a_client_that_only_ends_its_writing_is_there(diag: Diag):
    """Half a close is no close."""
    with connected() as (accepted, client):
        client.shutdown(socket.SHUT_WR)
        assert diag.client(accepted).inode == os.fstat(client.fileno()).st_ino


def test_a_port_that_listens_after_the_client_has_gone_is_not_the_client(diag: Diag):
    """A reset connection leaves its port free: whoever listens there did not write the request."""
    with connected(source=OWN_ADDRESS) as (accepted, client):
        where = client.getsockname()
        client.sendall(b"request")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        client.close()
        with socket.create_server(where):
            with pytest.raises(EvidenceError) as caught:
                diag.client(accepted)
            assert not is_open(accepted)
            assert accept_answer(diag._ask(Ends(2, where[1], 1, *ENDS[3:])) or b"", ENDS) is None
    assert caught.value.cause is Cause.PEER_GONE


def test_a_second_connection_from_the_same_port_is_not_the_first(diag: Diag):
    """The request of a reset connection is still readable, and the four addresses are somebody else's by then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = socket.create_connection(server.getsockname(), source_address=(OWN_ADDRESS, 0))
        accepted, where = server.accept()
        with accepted:
            first.sendall(b"request")
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            first.close()
            with socket.socket() as second:
                second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                second.bind(where)
                second.connect(server.getsockname())
                with pytest.raises(EvidenceError) as caught:
                    diag.client(accepted)
                again, _ = server.accept()
                with again:
                    assert diag.client(again).cookie == cookie(second)
    assert caught.value.cause is Cause.PEER_GONE


def test_an_end_in_another_place_is_foreign(diag: Diag, monkeypatch: pytest.MonkeyPatch):
    """What this network namespace does not know is refused as foreign."""
    with connected() as (accepted, _client):
        real = ends_of(accepted)
        monkeypatch.setattr(diag_module, "ends_of", lambda _: real._replace(port=1))
        with pytest.raises(EvidenceError) as caught:
            diag.client(accepted)
    assert caught.value.cause is Cause.FOREIGN_NAMESPACE


def test_other_sockets_are_refused(diag: Diag):
    """A Unix socket has no ports, an unconnected one no peer."""
    left, right = socket.socketpair()
    with left, right, pytest.raises(EvidenceError) as caught:
        diag.client(left)
    assert caught.value.cause is Cause.UNATTESTABLE
    with socket.socket() as lonely, pytest.raises(EvidenceError) as caught:
        diag.client(lonely)
    assert caught.value.cause is Cause.PEER_GONE


@pytest.mark.parametrize(
    ("address", "packed"), [("127.9.9.9", True), ("10.0.0.1", False), ("::1", True), ("::2", False)]
)
def test_only_loopback_is_attested(address: str, packed: bool):
    """The whole of 127/8, and ::1."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert diag_module._is_loopback(diag_module._packed(family, address)) is packed


def test_a_mapped_address_is_ipv4():
    """And a scope is cut off."""
    assert diag_module._packed(socket.AF_INET6, "::ffff:127.0.0.1") == bytes([127, 0, 0, 1])
    assert len(diag_module._packed(socket.AF_INET6, "fe80::1%lo")) == 16


def test_a_late_answer_is_not_taken_for_the_next(diag: Diag):
    """Answers are matched to questions by number."""
    with connected() as (accepted, client), connected() as (other, _):
        diag._door.send(request(ends_of(other), 999))
        assert diag.client(accepted).cookie == cookie(client)


def test_a_refused_question_is_unattestable(diag: Diag, monkeypatch: pytest.MonkeyPatch):
    """An error of the kernel is a refusal with its words."""
    with connected() as (accepted, _client):
        real = ends_of(accepted)
        monkeypatch.setattr(diag_module, "ends_of", lambda _: real._replace(family=99))
        with pytest.raises(EvidenceError) as caught:
            diag.client(accepted)
    assert caught.value.cause in {Cause.UNATTESTABLE, Cause.FOREIGN_NAMESPACE}
