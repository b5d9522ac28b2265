"""The nftables rules of a seal, as messages of pyroute2. Nothing is sent here.

Rules of the rules
- *guard* sits where packets reach local sockets (``input``), after every address translation and reassembly: whatever
  goes to a sealed port on any address of this machine, over loopback or from outside, is answered with a reset, unless
  it carries the mark of this instance.
- A mark can be set by whoever has CAP_NET_ADMIN or CAP_NET_RAW over this network namespace, and it does not survive the
  way from another namespace. It is 28 random bits, so no other software uses it by chance.
- *divert* sits before routing and gives a connection over loopback to our listener with ``tproxy``: addresses stay as
  the client chose them, so its socket can still be found from ours, and no connection tracking is switched on. Only a
  transparent socket is found by ``tproxy``, and only CAP_NET_ADMIN or CAP_NET_RAW makes one: when our listener is gone,
  nobody can take its place, the packet keeps its lack of a mark, and *guard* refuses it.
- What is diverted gets the mark. Packets of connections that are older than the seal do not find a transparent socket,
  so *guard* ends these connections.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import nft_chain_msg, nft_rule_msg, nft_table_msg

from attestd.evidence.sealing import Guard

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, NEWRULE, GETRULE = 0, 1, 2, 3, 6, 7
_CREATE, _APPEND = 0x400, 0x800
_INET = 1
_DIVERT, _GUARD = "divert", "guard"
_HOOKS = {_DIVERT: (0, -150), _GUARD: (1, 0)}
"""Hook and priority: prerouting where mangling is done, input where filtering is done."""
_EQ, _NEQ = 0, 1
_META_MARK, _META_IIF, _META_NFPROTO, _META_L4PROTO = 3, 4, 15, 16
_TRANSPORT_HEADER = 2
_TCP_RESET = 1
_LOOPBACK_INDEX = 1
"""Of ``lo`` in every network namespace."""
_FAMILIES = ((2, socket.AF_INET, "127.0.0.1"), (10, socket.AF_INET6, "::1"))
_COMMENT = re.compile(r"attestd seal (\S+) port ([0-9]{1,5}) ip ([0-9]{1,5}) ip6 ([0-9]{1,5})\Z")

Request = tuple[Any, int, int]
"""A message, its type and its flags."""


class _ListedRule(nfgen_msg):  # type: ignore[misc]  # pyroute2 has no types
    """A rule as it is listed, without a look at its expressions: an administrator may have added others."""

    prefix = "NFTA_RULE_"
    nla_map = (
        ("NFTA_RULE_UNSPEC", "none"),
        ("NFTA_RULE_TABLE", "asciiz"),
        ("NFTA_RULE_CHAIN", "asciiz"),
        ("NFTA_RULE_HANDLE", "be64"),
        ("NFTA_RULE_EXPRESSIONS", "cdata"),
        ("NFTA_RULE_COMPAT", "cdata"),
        ("NFTA_RULE_POSITION", "be64"),
        ("NFTA_RULE_USERDATA", "cdata"),
    )


def replacing(table: str, mark: int, guards: tuple[Guard, ...]) -> list[Request]:
    """The requests of one transaction after which the table has exactly these guards, whatever it had before."""
    requests = [(_table(table), NEWTABLE, _CREATE), (_table(table), DELTABLE, 0), (_table(table), NEWTABLE, _CREATE)]
    requests += [(_chain(table, name), NEWCHAIN, _CREATE) for name in _HOOKS]
    for guard in guards:
        for expressions in _diverting(guard, mark):
            requests.append((_rule(table, _DIVERT, expressions, guard), NEWRULE, _CREATE | _APPEND))
        refusing = [*_marked(mark, _NEQ), *_to_port(guard.port), _expression("reject", type=_TCP_RESET, icmp_code=0)]
        requests.append((_rule(table, _GUARD, refusing, guard), NEWRULE, _CREATE | _APPEND))
    return requests


def removing(table: str) -> list[Request]:
    """The request that takes a table away."""
    return [(_table(table), DELTABLE, 0)]


def asking_for_tables() -> Request:
    """The request for every table; wants a dump."""
    return nft_table_msg(), GETTABLE, 0


def asking_for_rules(table: str) -> Request:
    """The request for every rule of a table; wants a dump."""
    return _message(nft_rule_msg, NFTA_RULE_TABLE=table), GETRULE, 0


def read_table(message: bytes) -> str:
    """The name of a listed table."""
    return str(_read(nft_table_msg, message).get_attr("NFTA_TABLE_NAME"))


def read_guard(message: bytes) -> Guard | None:
    """The guard that a listed rule of ours is for; None: it is not the rule that refuses."""
    rule = _read(_ListedRule, message)
    words = rule.get_attr("NFTA_RULE_USERDATA") or b""
    found = _COMMENT.match(words[2:].rstrip(b"\0").decode(errors="replace"))
    if rule.get_attr("NFTA_RULE_CHAIN") != _GUARD or found is None:
        return None
    port, ip, ip6 = (int(word) for word in found.groups()[1:])
    return Guard(server=found[1], port=port, ip=ip, ip6=ip6)


def _read(kind: type[Any], message: bytes) -> Any:
    read = kind(message)
    read.decode()
    return read


def _diverting(guard: Guard, mark: int) -> Iterator[list[Any]]:
    for (number, family, address), port in zip(_FAMILIES, (guard.ip, guard.ip6), strict=True):
        if port:
            yield [
                *_meta_is(_META_IIF, struct.pack("=I", _LOOPBACK_INDEX)),
                *_meta_is(_META_NFPROTO, bytes([number])),
                *_marked(mark, _NEQ),
                *_to_port(guard.port),
                _expression("immediate", dreg=1, data=_value(socket.inet_pton(family, address))),
                _expression("immediate", dreg=2, data=_value(struct.pack("!H", port))),
                _expression("tproxy", family=number, reg_addr=1, reg_port=2),
                _expression("immediate", dreg=1, data=_value(struct.pack("=I", mark))),
                _expression("meta", key=_META_MARK, sreg=1),
            ]


def _marked(mark: int, operation: int) -> list[Any]:
    return _meta_is(_META_MARK, struct.pack("=I", mark), operation)


def _to_port(port: int) -> list[Any]:
    return [
        *_meta_is(_META_L4PROTO, bytes([socket.IPPROTO_TCP])),
        _expression("payload", dreg=1, base=_TRANSPORT_HEADER, offset=2, len=2),
        _expression("cmp", sreg=1, op=_EQ, data=_value(struct.pack("!H", port))),
    ]


def _meta_is(key: int, value: bytes, operation: int = _EQ) -> list[Any]:
    return [_expression("meta", key=key, dreg=1), _expression("cmp", sreg=1, op=operation, data=_value(value))]


def _value(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expression(name: str, **fields: Any) -> Any:
    data = [(f"NFTA_{name.upper()}_{key.upper()}", value) for key, value in fields.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": data})]}


def _table(name: str) -> Any:
    return _message(nft_table_msg, NFTA_TABLE_NAME=name)


def _chain(table: str, name: str) -> Any:
    hook, priority = _HOOKS[name]
    place = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
    return _message(
        nft_chain_msg,
        NFTA_CHAIN_TABLE=table,
        NFTA_CHAIN_NAME=name,
        NFTA_CHAIN_HOOK=place,
        NFTA_CHAIN_TYPE="filter",
    )


def _rule(table: str, chain: str, expressions: list[Any], guard: Guard) -> Any:
    comment = f"attestd seal {guard.server} port {guard.port} ip {guard.ip} ip6 {guard.ip6}"
    return _message(
        nft_rule_msg,
        NFTA_RULE_TABLE=table,
        NFTA_RULE_CHAIN=chain,
        NFTA_RULE_EXPRESSIONS=expressions,
        NFTA_RULE_USERDATA={"value": comment},
    )


def _message(kind: type[Any], **attributes: Any) -> Any:
    message = kind()
    message["attrs"] = list(attributes.items())
    message["nfgen_family"] = _INET
    return message
