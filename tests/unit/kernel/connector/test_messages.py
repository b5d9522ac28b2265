from __future__ import annotations

import struct

from pyroute2.netlink.connector.cn_proc import proc_event_control, proc_event_exec, proc_event_fork

from attestd.kernel.linux.connector import messages


def datagram(kind: int, data: bytes, *, sequence: int = 7, cpu: int = 1, ack: int = 0) -> bytes:
    header = struct.pack("=IHHII", messages.DATAGRAM, 3, 0, sequence, 0)
    connector = struct.pack("=IIIIHH", 1, 1, sequence, ack, 40, 0)
    return header + connector + struct.pack("=IIQ", kind, cpu, 123456789) + data.ljust(24, b"\0")


def test_a_slot_is_one_event():
    """Every field is where pyroute2's description of the same structure has it."""
    raw = datagram(messages.FORK, struct.pack("=4I", 10, 11, 12, 13))
    size, group, sequence, kind, cpu, when, *numbers, _rest = messages.EVENT.unpack(raw.ljust(messages.SLOT, b"\0"))
    theirs = proc_event_fork(raw)
    theirs.decode()
    assert (size, group, sequence) == (theirs["header"]["length"], theirs["idx"], theirs["seq"])
    assert (kind, cpu, when) == (theirs["what"], theirs["cpu"], theirs["timestamp_ns"])
    assert numbers == [theirs[name] for name in ("parent_pid", "parent_tgid", "child_pid", "child_tgid")]


def test_an_execution_has_two_numbers():
    """Thread and process, in this order."""
    raw = datagram(messages.EXEC, struct.pack("=2I", 10, 11))
    theirs = proc_event_exec(raw)
    theirs.decode()
    fields = messages.EVENT.unpack(raw.ljust(messages.SLOT, b"\0"))
    assert fields[6:8] == (theirs["process_pid"], theirs["process_tgid"])


def test_the_subscription_is_the_unfiltered_one():
    """The body is that of pyroute2's control message: one word, listen."""
    theirs = proc_event_control()
    theirs.update({"idx": 1, "val": 1, "seq": 0, "ack": 99, "len": 4, "flags": 0, "action": 1})
    theirs.encode()
    ours = messages.subscription(99)
    assert ours[16:] == bytes(theirs.data)[16:]
    assert int.from_bytes(ours[:4], "little") == len(ours)
    assert messages.subscription(0, listen=False)[-4:] == struct.pack("=I", 2)


def test_only_the_answer_to_our_token_counts():
    """Another listener's answer, another kind of event and a short datagram are not ours."""
    assert messages.acknowledged(datagram(messages.ACK, struct.pack("=I", 1), ack=100), 99) == 1
    assert messages.acknowledged(datagram(messages.ACK, b"", ack=0), 0xFFFFFFFF) == 0
    assert messages.acknowledged(datagram(messages.ACK, b"", ack=101), 99) is None
    assert messages.acknowledged(datagram(messages.FORK, b"", ack=100), 99) is None
    assert messages.acknowledged(b"short", 99) is None
