"""``attestd demo``: the main job on real input, in a throw-away instance, told as it happens.

The daemon runs in user mode with its embedded store below a temporary directory; the server is ``mcp-server-time``,
the client the ``mcp`` SDK. Approving is protected even here: the configuration of this instance names the program
digest of this very launcher in ``approval.approvers``, and says so. No product default does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from attestd.daemon.config import ServerSettings, write_server
from attestd.daemon.installation import Installation, find_installation
from attestd.errors import AttestdError, ConfigurationError

HERE = Path(__file__).resolve().parent
QUESTION = ("convert_time", json.dumps({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}))
START_S = 20.0


class DemoError(AttestdError):
    """A step of the story did not go as it must."""

    code = "demo"


class Demo:
    """One throw-away instance."""

    def __init__(self, root: Path, installation: Installation) -> None:
        self._root = root
        self._installation = installation
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "TERM", "LANG", "NO_COLOR", "COLUMNS") if key in os.environ},
            "HOME": str(root),
            "XDG_CONFIG_HOME": str(root / "c"),
            "XDG_STATE_HOME": str(root / "s"),
            "XDG_RUNTIME_DIR": str(root / "r"),
        }
        self.socket = root / "r" / "attestd" / "mcp" / "time.sock"

    def configure(self) -> None:
        """Write the configuration."""
        for name in ("c", "s", "r"):
            (self._root / name).mkdir(mode=0o700)
        configuration = self._root / "c" / "attestd"
        server = shutil.which("mcp-server-time", path=str(self._installation.scripts))
        if server is None:
            raise ConfigurationError(
                f"cannot find mcp-server-time in {self._installation.scripts}",
                hint="install it with: pip install 'attestd[demo]'",
            )
        command = (server, "--local-timezone", "UTC")
        write_server(configuration / "servers.d", ServerSettings(name="time", transport="stdio", command=command))
        text = (
            'note = "throw-away instance of attestd demo: its own launcher may approve"\n'
            "[approval]\n"
            "# The launcher of the demo plays the person. Never do this on an instance that matters.\n"
            f'approvers = ["{self._installation.program_of("attestd")}"]\n'
        )
        (configuration / "attestd.toml").write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """The daemon, for as long as the block runs."""
        log = (self._root / "daemon.log").open("wb")
        command = [str(self._installation.scripts / "attestd"), "run", "--user"]
        process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
        try:
            deadline = time.monotonic() + START_S
            while not self.socket.exists() or not (self._root / "r" / "attestd" / "control.sock").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (self._root / "daemon.log").read_text(encoding="utf-8", errors="replace").strip()
                    raise DemoError(f"the daemon did not start: {said or 'it said nothing'}")
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()

    def client(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run one of the two clients; its question is the same."""
        shim = str(self._installation.scripts / "attestd-connect")
        command = [sys.executable, str(HERE / script), shim, str(self.socket), "time", *QUESTION]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603

    def ctl(self, *words: str, capture: bool = False) -> str:
        """Run attestctl and show it, or return what it printed. Raises DemoError."""
        command = [str(self._installation.scripts / "attestctl"), *words]
        if not capture:
            say(f"\n$ attestctl {' '.join(words)}")
            sys.stdout.flush()
        result = subprocess.run(  # noqa: S603
            command,
            env=self.environment,
            stdout=subprocess.PIPE if capture else None,
            text=True,
            check=False,
            timeout=60,
        )
        if result.returncode != 0:
            raise DemoError(f"attestctl {' '.join(words)} ended with exit code {result.returncode}")
        return result.stdout if capture else ""


def say(text: str) -> None:
    """One line of the story."""
    click.echo(text)


def tell(demo: Demo) -> None:
    """The story itself. Raises DemoError when a step does not go as it must."""
    say("attestd demo: a throw-away instance in user mode,")
    say("with a real server (mcp-server-time) and a real client (the mcp SDK).")
    say("Its configuration lets this launcher approve; no instance of yours does that by default.")

    say("\n1. A client calls for the first time. Reaching the socket gives it nothing:")
    code = refused(demo.client("assistant.py"))
    demo.ctl("approve", code, "--all-tools", *launchers(demo, code), "--for", "standing", "--yes")
    say("\n2. The same client, now with a grant, asks again and gets its answer:")
    say(f"   {answered(demo.client('assistant.py'))}")

    say("\n3. Another program of the same user, the same SDK, the same question:")
    code = refused(demo.client("newcomer.py"))
    demo.ctl("pending")
    say("\n4. A person lets it in, for this one tool and one hour:")
    demo.ctl("approve", code, "--tool", QUESTION[0], *launchers(demo, code), "--for", "1h", "--yes")
    say(f"\n   {answered(demo.client('newcomer.py'))}")
    demo.ctl("grants", "list")

    say("\n5. Everything above was recorded before it happened, in a chained and signed log:")
    demo.ctl("audit", "tail", "--lines", "30")
    demo.ctl("audit", "verify")


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The approval code of a refusal that must have been."""
    if result.returncode != 1:
        raise DemoError(f"expected a refusal, got exit code {result.returncode}: {result.stdout}{result.stderr}")
    try:
        answer = json.loads(result.stdout.splitlines()[-1])
        code = str(answer["data"]["code"] or "")
    except (ValueError, LookupError, TypeError):
        code = ""
    if not code:
        raise DemoError(f"expected a refusal with a code, got: {result.stdout}{result.stderr}")
    say("   " + answer["message"].replace("\n", "\n   "))
    say("   data: " + json.dumps(answer["data"], ensure_ascii=False))
    return code


def answered(result: subprocess.CompletedProcess[str]) -> str:
    """The answer of a call that must have been permitted."""
    if result.returncode != 0:
        raise DemoError(f"expected an answer, got exit code {result.returncode}: {result.stdout}{result.stderr}")
    return " ".join(result.stdout.split())


def launchers(demo: Demo, code: str) -> Sequence[str]:
    """Name the launchers of this run (make, a shell script, this program), as a person would after reading them."""
    for line in demo.ctl("pending", "--json", capture=True).splitlines():
        pending = json.loads(line)
        if pending["code"] == code:
            return [
                w for each in pending["caller"]["launchers"] for w in ("--launched-by", each["program"] or "unreadable")
            ]
    raise DemoError(f"{code} is not pending any more")


def run_demo(*, stay: bool) -> None:
    """Tell the story; with ``stay``, keep the instance until the person ends it. Raises AttestdError."""
    installation = find_installation()
    root = Path(tempfile.mkdtemp(prefix="attestd-demo-"))
    demo = Demo(root, installation)
    try:
        demo.configure()
        with demo.daemon():
            tell(demo)
            if stay:
                say("\nThis instance stays up until Enter or Ctrl-C. In another terminal try:")
                say(f"   export XDG_RUNTIME_DIR={demo.environment['XDG_RUNTIME_DIR']}")
                say(f"   {installation.scripts / 'attestctl'} status")
                say(f"   {installation.scripts / 'attestctl'} inspect --self")
                say(f"   echo '{{}}' | {installation.scripts / 'attestd-connect'} time")
                with contextlib.suppress(KeyboardInterrupt, EOFError):
                    input()
        say("\nThe instance is gone; nothing was left behind.")
    finally:
        shutil.rmtree(root, ignore_errors=True)
