from __future__ import annotations

import os

import pytest

from attestd.kernel.linux.labels import OwnNamespaces, cgroup, namespace_inode, terminal


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, None), (0x8803, "pts/3"), (0x8903, "pts/259"), (0x0401, "tty1"), (0x0440, "ttyS0"), (0x108800, "pts/256")],
)
def test_terminals_have_names(number: int, name: str | None):
    """Pseudo terminals, consoles and serial lines are told from their numbers."""
    assert terminal(number) == name


def test_an_unknown_terminal_keeps_its_number():
    """A device without an entry in /sys is shown by its number."""
    assert terminal(0xFFE01) == "char 4094:1" or "char" in str(terminal(0xFFE01))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"0::/user.slice/x.scope\n", "/user.slice/x.scope"),
        (b"1:name=systemd:/a.service\n0::/\n", "/a.service"),
        (b"0::/\n", "/"),
        (b"", ""),
    ],
)
def test_the_control_group_that_says_most_is_shown(raw: bytes, expected: str):
    """The unified group, unless only systemd's own hierarchy is used."""
    assert cgroup(raw) == expected


def test_own_namespaces_are_those_of_the_links():
    """The numbers equal those in the link texts."""
    ours = OwnNamespaces.read()
    assert ours.user == namespace_inode(os.readlink("/proc/self/ns/user"))
    assert ours.pid == namespace_inode(os.readlink("/proc/self/ns/pid"))
    assert ours.mnt == namespace_inode(os.readlink("/proc/self/ns/mnt"))
