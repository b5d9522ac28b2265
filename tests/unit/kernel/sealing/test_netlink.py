"""The exchange with nftables, as far as it can be seen without a right to it."""

from __future__ import annotations

import errno
import struct

import pytest

from attestd.kernel.linux.sealing import netlink, rules
from attestd.kernel.linux.sealing.netlink import _demand_good, _encoded, _messages, _raw
from tests.support.network import own_network


def test_messages_are_cut_apart():
    """Each is whole, with its type and sequence number; padding between them is not theirs."""
    first, second = struct.pack("=IHHII", 17, 1, 0, 5, 0) + b"x", struct.pack("=IHHII", 16, 2, 0, 6, 0)
    assert list(_messages(first + b"\0\0\0" + second)) == [(1, 5, first), (2, 6, second)]


@pytest.mark.parametrize("length", [0, 15, 100])
def test_a_length_that_is_wrong_is_an_error(length: int):
    """What cannot be read is not taken for success."""
    with pytest.raises(OSError, match="Bad message"):
        list(_messages(struct.pack("=IHHII", length, 1, 0, 5, 0)))


def test_a_refusal_is_an_error():
    """Zero is an acknowledgement, anything else the number of the error."""
    _demand_good(bytes(16) + struct.pack("=i", 0))
    with pytest.raises(PermissionError):
        _demand_good(bytes(16) + struct.pack("=i", -errno.EPERM))


def test_the_question_for_a_table_is_what_pyroute2_writes():
    """The one message that is encoded by hand."""
    name = "attestd-seal-0123456789ab"
    ((message, _, _),) = rules.removing(name)
    text = name.encode() + b"\0"
    body = struct.pack("=HH", 4 + len(text), 1) + text + b"\0" * (-len(text) % 4)
    assert _raw(10 << 8 | 1, 0, 1, 0, family=1, body=body) == _encoded(message, 10 << 8 | 1, 0, 1)


@pytest.mark.root
def test_a_transaction_is_done_wholly_or_not_at_all():
    """The request before one that fails leaves nothing behind; the error of the one that failed is told."""
    with own_network():
        with pytest.raises(FileNotFoundError):
            netlink.commit([*rules.replacing("attestd-seal-x", 1, ()), *rules.removing("attestd-seal-none")])
        assert not netlink.table_exists("attestd-seal-x")
        netlink.commit(rules.replacing("attestd-seal-x", 1, ()))
        assert netlink.table_exists("attestd-seal-x")
        assert netlink.ask(rules.asking_for_rules("attestd-seal-x"), dump=True) == []


@pytest.mark.ordinary
def test_without_the_right_every_question_is_refused():
    """Nothing is told and nothing is done."""
    with pytest.raises(PermissionError):
        netlink.table_exists("attestd-seal-x")
    with pytest.raises(PermissionError):
        netlink.commit(rules.removing("attestd-seal-x"))
