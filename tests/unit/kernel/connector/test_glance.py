from __future__ import annotations

import os
import subprocess
import sys

from attestd.kernel.linux.connector import glance
from tests.support.children import python, running


def test_a_living_process_is_seen():
    """Name, real uid and start time of ourselves are /proc's."""
    seen = glance.look(os.getpid())
    assert seen is not None
    assert (seen.pid, seen.uid, seen.alive) == (os.getpid(), os.getuid(), True)
    assert seen.start_ns % glance.TICK_NS == 0
    assert glance.look(os.getpid(), with_uid=False) == seen._replace(uid=glance.UNKNOWN_UID)


def test_a_name_with_parentheses_is_taken_whole():
    """A process may put anything into its name."""
    code = "open('/proc/self/comm', 'w').write('a) S 1 (b'); print('ready', flush=True); input()"
    with python(code) as child:
        seen = glance.look(child.pid)
    assert seen is not None
    assert seen.comm == "a) S 1 (b"


def test_a_zombie_is_not_alive():
    """It has a pid and a name, and runs nothing."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    seen = glance.look(child.pid)
    child.wait()
    assert seen is not None
    assert not seen.alive
    assert glance.look(child.pid) is None


def test_a_process_whose_first_thread_has_ended_is_alive():
    """Its state reads as a zombie's, but another thread runs."""
    code = """
import ctypes, sys, threading
def rest():
    while open('/proc/self/stat').read().rpartition(')')[2].split()[0] != 'Z': pass
    print('ready', flush=True); sys.stdin.readline()
threading.Thread(target=rest).start()
ctypes.CDLL(None).syscall(60 if sys.maxsize and __import__('os').uname().machine == 'x86_64' else 93, 0)
"""
    with python(code) as child:
        seen = glance.look(child.pid)
    assert seen is not None
    assert seen.alive


def test_the_image_is_the_inode_of_the_executable():
    """What /proc shows, as a claim."""
    with running("sleep", "100") as child:
        image = glance.image(child.pid)
        facts = os.stat(f"/proc/{child.pid}/exe")
    assert image is not None
    assert (image.dev, image.ino, image.size) == (facts.st_dev, facts.st_ino, facts.st_size)
    assert glance.image(2**22 + 5) is None


def test_every_process_is_listed():
    """We are among them, and init."""
    assert {1, os.getpid()} <= set(glance.pids())
    assert sys.platform == "linux"
