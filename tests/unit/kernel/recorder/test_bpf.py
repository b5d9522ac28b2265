"""bpf(2) without rights: errors arrive as errors."""

from __future__ import annotations

import os

import pytest

from attestd.kernel.linux.recorder import bpf


def test_a_name_that_is_not_pinned():
    """ENOENT, or EPERM where bpf is closed to us."""
    with pytest.raises(OSError, match=r"No such file|not permitted"):
        bpf.pinned("/sys/fs/bpf/there-is-no-such-name")


def test_a_descriptor_that_is_no_map():
    """EINVAL or EBADF, never an answer."""
    with open(os.devnull, "rb") as file, pytest.raises(OSError):
        bpf.map_get(file.fileno(), bytes(4), 8)


def test_a_lookup_that_fails():
    """An error that is not "there is none" is raised."""
    with open(os.devnull, "rb") as file, pytest.raises(OSError):
        bpf.Lookup(file.fileno(), 4, 8).find()


def test_descriptors_are_closed():
    """``closing`` closes them, also after an exception."""
    fd = os.dup(0)
    with pytest.raises(KeyError), bpf.closing(fd):
        raise KeyError
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
