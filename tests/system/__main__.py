"""``python -m tests.system [WORD…]``: the installed service on a Debian of its own, with a real PID 1; see ``make system-test``.

One line for each thing that is shown, PASS or FAIL. With words only the groups whose name contains one of them are run:
install, users, launcher, crowd, http, attack, recorder, confine, life, soak, remove, guide, pipx. ``--sessions`` and ``--calls``: how long the
soak is. ``--shell`` opens one in the prepared system instead. Needs root, debootstrap, systemd-nspawn and qemu-system-x86_64. Exit 0: everything that was to be shown was.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from attestd import __version__
from tests.system import (
    adding,
    attacking,
    confining,
    crowding,
    deciding,
    following,
    fronting,
    installing,
    launching,
    life,
    machine,
    owning,
    recording,
    removing,
    soaking,
    stage,
    users,
)
from tests.system.report import Report

NEXT = f"{__version__}+next"


def main(words: list[str]) -> int:
    """The whole run."""
    parser = argparse.ArgumentParser(prog="python -m tests.system")
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--shell", action="store_true")
    asked = parser.parse_args(words)
    if os.geteuid() != 0:
        print("cannot run the system test: it needs root", file=sys.stderr)
        return 1
    machine.enter_namespace(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is running then is ended in order
    report = Report(tuple(asked.groups))
    first, next_deb = stage.packages(__version__, NEXT)
    with machine.booted() as system:
        report.trouble = lambda: system.journal("attestd*")
        stage.lay_users(system)
        for name, lines in stage.SERVERS.items():
            stage.register(system, name, lines)
        said = stage.install(system, first)
        stage.lay_servers(system)
        stage.lay_places(system)
        if asked.shell:
            subprocess.run(system.enter("bash"), check=False)
            return 0
        if report.wants("install"):
            installing.check(system, report, said)
        if report.wants("users"):
            users.check(system, report)
            adding.check(system, report)
        if report.wants("launcher"):
            launching.check(system, report)
        if report.wants("crowd"):
            crowding.check(system, report)
        if report.wants("http"):
            fronting.check(system, report)
        if report.wants("attack"):
            attacking.check(system, report)
        if report.wants("recorder"):
            recording.check(system, report)
        if report.wants("confine"):
            confining.check(system, report)
        if report.wants("life"):
            life.check(system, report)
            deciding.check(system, report)
        if report.wants("soak"):
            soaking.check(system, report, asked.sessions, asked.calls)
        if report.wants("remove"):
            removing.upgraded(system, report, next_deb)
            removing.removed(system, report, next_deb)
        if report.wants("guide"):
            _purged(system)
            following.check(system, report, next_deb)
        if report.wants("pipx"):
            _purged(system)
            owning.check(system, report)
    return report.end()


def _purged(system: machine.Machine) -> None:
    if system.path("/var/lib/dpkg/info/attestd.list").exists():
        removing.apt(system, "purge")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
