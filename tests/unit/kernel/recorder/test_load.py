"""The parts of the loader that need no kernel."""

from __future__ import annotations

import struct

from attestd.errors import NotPermittedError
from attestd.kernel.linux.recorder import layout
from attestd.kernel.linux.recorder.bpf import VerifierError
from attestd.kernel.linux.recorder.btf import Btf
from attestd.kernel.linux.recorder.failures import RecorderError, refused
from attestd.kernel.linux.recorder.load import place_map, storage_types


def test_a_map_in_an_instruction():
    """The load of an address names the map's descriptor, and is marked as such."""
    code = bytearray(struct.pack("<BBhi", 0x18, 0x01, 0, 0) + bytes(8))
    place_map(code, 0, 77)
    assert bytes(code) == struct.pack("<BBhi", 0x18, 0x11, 0, 77) + bytes(8)
    place_map(code, 0, None)
    assert bytes(code) == struct.pack("<BBhi", 0x18, 0x01, 0, 0) + bytes(8)


def test_the_types_of_task_storage():
    """An int and a structure of the right size."""
    btf = Btf(storage_types(layout.WORDS_BYTES))
    assert (btf.name(btf.type(1)), btf.size(1), btf.size(2)) == ("int", 4, layout.WORDS_BYTES)


def test_a_missing_right():
    """EPERM without a verifier's log is a missing capability, and says which."""
    error = refused("load it", PermissionError(1, "x"))
    assert isinstance(error, NotPermittedError)
    assert error.message == "cannot load it: operation not permitted"
    assert "CAP_BPF" in error.hint


def test_a_rejected_program():
    """With a log it is the program that was rejected; the log is shown."""
    error = refused("load it", VerifierError(13, "R1 is wrong"), "R1 is wrong")
    assert isinstance(error, RecorderError)
    assert error.message == "cannot load it: permission denied\nR1 is wrong"
