from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.kernel.linux import abi


def test_pidfd_info_names_the_process_and_its_parent():
    """PIDFD_GET_INFO on ourselves gives our pid, parent and real uid."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        info = abi.pidfd_info(pidfd)
    except OSError as error:
        pytest.skip(f"no PIDFD_GET_INFO: {error}")
    else:
        assert (info.pid, info.ppid, info.ruid) == (os.getpid(), os.getppid(), os.getuid())
        assert abi.pidfd_ppid(pidfd) == os.getppid()
    finally:
        os.close(pidfd)


def test_pidfd_of_a_reaped_process_names_nobody():
    """A reaped process gives ESRCH and pid -1."""
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    pidfd = os.pidfd_open(child.pid)
    child.wait()
    try:
        with pytest.raises(OSError):
            abi.pidfd_info(pidfd)
        assert abi.pidfd_pid(pidfd) == -1
    finally:
        os.close(pidfd)


def test_pidfd_pid_reads_the_number_from_fdinfo():
    """The way without PIDFD_GET_INFO gives the same pid."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert abi.pidfd_pid(pidfd) == os.getpid()
    finally:
        os.close(pidfd)


def test_fs_name_knows_proc_and_memory():
    """Known magic numbers have names."""
    proc = os.open("/proc/self/status", os.O_RDONLY)
    memory = os.memfd_create("x")
    try:
        assert abi.fs_name(proc) == "proc"
        assert abi.fs_name(memory) in {"tmpfs", "ramfs"}
    finally:
        os.close(proc)
        os.close(memory)


def test_fs_name_of_a_closed_descriptor_is_an_error():
    """Errors of fstatfs are raised with their number."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        abi.fs_name(-1)


def test_generation_is_a_number_everywhere(tmp_path: Path):
    """A file system without generations gives 0, not an error."""
    memory = os.memfd_create("x")
    file = os.open(tmp_path, os.O_RDONLY)
    try:
        assert abi.generation(memory) >= 0
        assert abi.generation(file) >= 0
    finally:
        os.close(memory)
        os.close(file)
