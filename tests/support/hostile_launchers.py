"""Programs, as text, that hide who launched a client or feed it bytes of their own; several rows start them."""

from __future__ import annotations

HIDE = '''\
"""Starts a program as a grandchild whose parent has exited. argv: setsid | stay | clone, the program's words.

clone: the grandchild itself starts the program, as a child of its own parent (CLONE_PARENT), which is the reaper then.
"""
import ctypes, os, platform, sys

CLONE_PARENT, SIGCHLD = 0x8000, 17
how, *words = sys.argv[1:]
if os.fork() == 0:
    if how == "setsid":
        os.setsid()
    if os.fork() == 0:
        before = os.getppid()
        while os.getppid() == before and before != 1:
            pass
        if how == "clone":
            os.setsid()
            number = 56 if platform.machine() == "x86_64" else 220
            if ctypes.CDLL(None).syscall(number, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0):
                os._exit(0)
        os.execv(words[0], words)
    os._exit(0)
os.wait()
'''
PIPED = '''\
"""Starts a relay, writes a file into its pipe, becomes a granted program with both. argv: file, relay, --, words."""
import os, subprocess, sys

text, *rest = sys.argv[1:]
cut = rest.index("--")
relay = subprocess.Popen(rest[:cut], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
relay.stdin.write(open(text, "rb").read())
relay.stdin.flush()
for stream in (relay.stdin, relay.stdout):
    os.set_inheritable(stream.fileno(), True)
words = rest[cut + 1 :]
os.execv(words[0], [word.replace("FDS", f"{relay.stdout.fileno()},{relay.stdin.fileno()}") for word in words])
'''
