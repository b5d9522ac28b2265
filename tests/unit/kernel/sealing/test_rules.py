"""The rules of a seal, as they go to the kernel."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import nft_rule_msg

from attestd.evidence.sealing import Guard
from attestd.kernel.linux.sealing import netlink, rules

MARK = 0x01020304
NAMES = {0: "new table", 2: "delete table", 3: "new chain", 6: "new rule"}


def sequence(*guards: Guard) -> list[str]:
    """What a transaction does, in words."""
    return [NAMES[kind] for _, kind, _ in rules.replacing("t", MARK, guards)]


def expressions(message: Any) -> list[tuple[str, dict[str, Any]]]:
    """Names and fields of a rule's expressions."""
    found = []
    for each in dict(message["attrs"])["NFTA_RULE_EXPRESSIONS"]:
        fields = dict(each["attrs"])
        found.append((fields["NFTA_EXPR_NAME"], dict(fields["NFTA_EXPR_DATA"]["attrs"])))
    return found


def constants(message: Any, kind: str = "cmp") -> list[tuple[int, bytes]]:
    """What is compared, or loaded: operation and value."""
    return [
        (fields.get("NFTA_CMP_OP", -1), dict(fields[f"NFTA_{kind.upper()}_DATA"]["attrs"])["NFTA_DATA_VALUE"])
        for name, fields in expressions(message)
        if name == kind
    ]


def test_a_transaction_begins_with_nothing():
    """The table is made so that it can be deleted, and made anew: whatever it had is gone in the same transaction."""
    guards = (Guard(server="a", port=80, ip=1, ip6=2), Guard(server="b", port=81))
    begin = ["new table", "delete table", "new table", "new chain", "new chain"]
    assert sequence(*guards) == [*begin, "new rule", "new rule", "new rule", "new rule"]
    assert sequence(guards[1]) == [*begin, "new rule"]


def test_whoever_has_no_mark_is_reset():
    """The rule that refuses: not our mark, TCP, this port; no address and no interface, so it holds for all of them."""
    message = rules.replacing("t", MARK, (Guard(server="a", port=0x1F90),))[-1][0]
    tcp, port = (0, b"\x06"), (0, b"\x1f\x90")
    assert constants(message) == [(1, struct.pack("=I", MARK)), tcp, port]
    assert [name for name, _ in expressions(message)] == ["meta", "cmp", "meta", "cmp", "payload", "cmp", "reject"]


@pytest.mark.parametrize(("ip", "ip6", "number"), [(7, 0, 2), (0, 7, 10)])
def test_what_is_redirected_gets_the_mark_afterwards(ip: int, ip6: int, number: int):
    """Only over loopback and without our mark; the mark comes after tproxy, which ends the rule if it finds nobody."""
    message = rules.replacing("t", MARK, (Guard(server="a", port=80, ip=ip, ip6=ip6),))[-2][0]
    assert constants(message)[:3] == [
        (0, struct.pack("=I", 1)),
        (0, bytes([number])),
        (1, struct.pack("=I", MARK)),
    ]
    names = [name for name, _ in expressions(message)]
    assert names[-5:] == ["immediate", "immediate", "tproxy", "immediate", "meta"]
    assert constants(message, "immediate")[1:] == [(-1, b"\0\x07"), (-1, struct.pack("=I", MARK))]


def test_a_guard_is_read_from_the_rule_that_refuses():
    """And from no other, whatever its comment says."""
    guard = Guard(server="a.b-c_d", port=8765, ip=1, ip6=65535)
    *_, divert, refuse = [message for message, _, _ in rules.replacing("t", MARK, (guard,))]
    assert rules.read_guard(netlink._encoded(refuse, 0, 0, 1)) == guard
    assert rules.read_guard(netlink._encoded(divert, 0, 0, 1)) is None


@pytest.mark.parametrize("comment", ["", "attestd seal", "attestd seal a port x ip 1 ip6 1", "something else"])
def test_a_rule_with_other_words_is_none_of_ours(comment: str):
    """An administrator may add rules to the table."""
    message = nft_rule_msg()
    message["attrs"] = [("NFTA_RULE_TABLE", "t"), ("NFTA_RULE_CHAIN", "guard")]
    if comment:
        message["attrs"].append(("NFTA_RULE_USERDATA", {"value": comment}))
    assert rules.read_guard(netlink._encoded(message, 0, 0, 1)) is None


def test_the_name_of_a_table_is_read():
    """As it was written."""
    ((message, _, _),) = rules.removing("attestd-seal-0")
    assert rules.read_table(netlink._encoded(message, 0, 0, 1)) == "attestd-seal-0"
