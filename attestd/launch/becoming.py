"""How the process of a server stops being the launcher's and becomes its account's, before it executes its program.

Standard library only: this runs in an isolated interpreter, between fork and execute.

Rules
- No capability is left in any set, and none can be gained, before anything of the account's is looked at: directories,
  programs, the name service. So what the account can do to these is done to itself.
- The last step proves it by the kernel's own words; without the proof nothing is executed.
"""
# ruff: noqa: PTH123 - as in ``tree``

import errno
import os
import pwd
import sys
from collections.abc import Iterable
from functools import partial
from typing import NoReturn

from attestd.launch import cgroups
from attestd.launch.accounts import Account
from attestd.launch.program import Order
from attestd.launch.registry import Registered
from attestd.launch.sandbox import Step, clear_capabilities, drop_bounding

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

GRACE_S = 2.0
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EMPTY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class SystemOrder(Order):
    """One server of the registry, for one account."""

    def __init__(self, registered: Registered, account: Account, cgroup: str) -> None:
        self.grace_s = GRACE_S
        self.argv = [os.fsencode(word) for word in registered.argv]
        self.file = self.argv[0]
        self.cwd = os.fsencode(registered.cwd)
        self.env = {}
        self.sandbox = registered.sandbox
        self._own_env = {os.fsencode(key): os.fsencode(value) for key, value in registered.env.items()}
        self._account = account
        self._cgroup = cgroup

    def steps(self) -> Iterable[Step]:
        """Cgroup, limits, account, then the rest of its sandbox; the proof comes last."""
        steps: list[Step] = [(b"enter its cgroup", partial(cgroups.enter, self._cgroup))] if self._cgroup else []
        return (
            *steps,
            *self.sandbox.limited(),
            (b"give up every capability that could be gained", drop_bounding),
            (b"become uid %d" % self._account.uid, self._become),
            (b"give up every capability", clear_capabilities),
            (b"make its environment", self._introduce),
            *self.sandbox.confined(),
            (b"prove that it is uid %d and has no capability" % self._account.uid, self._prove),
        )

    def execute(self) -> NoReturn:
        """Become the program, found in the PATH of its own environment. Raises OSError."""
        if b"/" in self.file:
            os.execve(self.file, self.argv, self.env)  # noqa: S606 - a shell is what must not be here
        failure: OSError = FileNotFoundError(errno.ENOENT, "no such program in PATH")
        for directory in self.env[b"PATH"].split(b":"):
            if directory.startswith(b"/"):
                try:
                    os.execve(directory + b"/" + self.file, self.argv, self.env)  # noqa: S606 - as above
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except PermissionError as error:
                    failure = error
        raise failure

    def _become(self) -> None:
        account = self._account
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)

    def _introduce(self) -> None:
        """The environment; a client's name and home come from the name service, which is asked as the client."""
        account = self._account
        name, home = account.name, account.home
        if not account.name:
            try:
                entry = pwd.getpwuid(account.uid)
                name, home = entry.pw_name, entry.pw_dir
            except KeyError:
                name = str(account.uid)  # an account that nobody knows
        usual = {"PATH": BASE_PATH, "HOME": home, "USER": name, "LOGNAME": name, "LANG": "C.UTF-8"}
        self.env = {os.fsencode(key): os.fsencode(value) for key, value in usual.items()} | self._own_env

    def _prove(self) -> None:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
        uids = {int(word) for word in status["Uid"].split()}
        capabilities = {int(status[name], 16) for name in EMPTY_SETS}
        if uids != {self._account.uid} or capabilities != {0} or status["NoNewPrivs"].strip() != "1":
            raise PermissionError(errno.EPERM, "still privileged")
