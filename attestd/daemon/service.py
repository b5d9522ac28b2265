"""The running service: kernel, launcher, daemon and control socket, started together and ended together."""

from __future__ import annotations

import asyncio
import logging
import socket

from attestd.appraisal.approver import may_approve
from attestd.appraisal.model import AttestationResult
from attestd.control.service import ControlCaller
from attestd.daemon.activation import Passed
from attestd.daemon.answers import Answers
from attestd.daemon.app import Daemon
from attestd.daemon.control_server import Attested, ControlLimits, ControlServer
from attestd.daemon.listening import Listening
from attestd.daemon.notify import Notifier
from attestd.daemon.paths import Paths
from attestd.daemon.platforms import host_id, open_authority, open_launcher, open_platform
from attestd.daemon.self_check import SelfCheck, SelfCheckError, WrongDecisionError
from attestd.enforcement.workers import TooSlowError
from attestd.errors import AttestdError, EvidenceError
from attestd.evidence.model import Peer
from attestd.mediation import Attested as Bound
from attestd.mediation import attest

LOG = logging.getLogger("attestd")
PINGS = 3
"""Signs of life in the time after which the manager misses one."""
EVERYBODYS = 4096
"""Control connections of all users of a system installation; each user has a share of its own (``ControlLimits``)."""


class Serving:
    """One instance; made and closed on the loop's thread."""

    def __init__(
        self,
        paths: Paths,
        recorder_root: str | None = None,
        *,
        process_events: bool = True,
        notifier: Notifier | None = None,
        passed: Passed | None = None,
    ) -> None:
        """Start everything. Raises AttestdError, and then nothing is left running.

        ``notifier`` and ``passed``: the service manager's, where one started us.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._notifier = notifier or Notifier()
        self._watchdog: asyncio.TimerHandle | None = None
        listening = Listening(passed, self._notifier)
        self._platform = platform = open_platform(paths.state, recorder_root, process_events=process_events)
        try:
            self.daemon = Daemon(
                paths=paths,
                kernel=platform.kernel,
                recorder=platform.recorder,
                launcher=open_launcher(paths),
                host_id=host_id() or "unknown",
                acceptors=platform.acceptors,
                sealer=platform.sealer,
                listening=listening,
                authority=None if paths.user_mode else open_authority(),
            )
        except BaseException:
            platform.close()
            raise
        loop.set_exception_handler(self._bug_in_loop)
        try:
            self._control = self._made_control(listening)
            self._control.start()
        except BaseException:
            self.daemon.abandon()
            platform.close()
            raise

    def _made_control(self, listening: Listening) -> ControlServer[AttestationResult]:
        paths = self.daemon.paths
        return ControlServer(
            path=paths.control,
            service=Answers(self.daemon),
            peer_of=self.daemon.kernel.peer,
            attest=self._attest,
            only_uid=paths.runtime.stat().st_uid if paths.user_mode else None,
            on_bug=self._bug,
            mode=0o600 if paths.user_mode else 0o666,
            passed=listening.control(paths.control),
            limits=ControlLimits() if paths.user_mode else ControlLimits(connections=EVERYBODYS),
        )

    def ready(self) -> None:
        """Tell the service manager that calls are served, and from now on that they still are."""
        self._notifier.ready(f"serving {len(self.daemon.fronts)} servers")
        if self._notifier.watchdog_s:
            self._ping(SelfCheck(self.daemon))

    def _ping(self, check: SelfCheck) -> None:
        """One sign of life, if the decision path deserves it; without one the manager ends us and starts anew.

        Who decides wrongly is ended at once. Who cannot decide refuses, and may find its way back before the next sign.
        """
        self._watchdog = self._loop.call_later(self._notifier.watchdog_s / PINGS, self._ping, check)
        try:
            state = check.run()
        except SelfCheckError as error:
            LOG.critical("self-check failed: %s", error.message)
            self.daemon.trouble(f"self-check failed: {error.message}")
            if isinstance(error, WrongDecisionError):
                self._notifier.failed(f"self-check failed: {error.message}")
            return
        self._notifier.alive(state)

    async def close(self) -> None:
        """End everything in order."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self._control.close()
        await self.daemon.close()
        self._platform.close()

    def reload_signalled(self) -> None:
        """SIGHUP: a bad configuration is noted, and the old one stays."""
        self._notifier.reloading()
        try:
            changes = self.daemon.reload()
        except AttestdError as error:
            LOG.warning("reload refused: %s", error.message)
            self.daemon.trouble(f"reload refused: {error.message}")
            self._notifier.ready(f"the old configuration goes on, reload refused: {error.message}")
            return
        LOG.info("reloaded: %s", "; ".join(changes) or "nothing changed")
        self._notifier.ready(f"serving {len(self.daemon.fronts)} servers")

    async def _attest(self, sock_fd: int) -> Attested[AttestationResult]:
        daemon = self.daemon
        held = socket.socket(fileno=socket.dup(sock_fd))

        def late(found: Bound | None) -> None:
            held.close()
            if found is not None:
                found.watch.close()

        peer = daemon.kernel.peer(held.fileno())
        appraiser = daemon.appraiser
        seconds = daemon.settings.limits.attest_seconds
        try:
            found = await daemon.workers.run(
                attest, daemon.kernel, held.fileno(), peer, appraiser, seconds=seconds, late=late, owner=peer.uid
            )
        except asyncio.CancelledError:  # ``late`` lets go
            raise
        except TooSlowError:
            return _nobody(peer, f"a file or process of it did not answer within {seconds:g} s")
        except EvidenceError as error:
            held.close()
            return _nobody(peer, error.message)
        except BaseException:
            held.close()
            raise
        held.close()
        result = found.result
        approvers = frozenset(daemon.settings.approval.approvers)
        approval = may_approve(found.evidence, result, appraiser.references, approvers)
        return Attested(
            caller=ControlCaller(
                uid=peer.uid,
                pid=peer.pid,
                result=result,
                how=approval.how.value if approval.allowed else "",
                display=result.display,
                why_not=approval.reason,
                asks=approval.asks,
                start=found.evidence.chain[0].start_ticks,
                pidfd=next(iter(found.watch.exit_fds()), -1),
            ),
            watch=found.watch,
        )

    def _bug(self, error: BaseException) -> None:
        LOG.error("a control request failed", exc_info=error)
        self.daemon.trouble(f"internal: {type(error).__name__}: {error}"[:256])

    def _bug_in_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.daemon.trouble(f"internal: {context.get('message')}: {error!r}"[:256])
        loop.default_exception_handler(context)


def _nobody(peer: Peer, why: str) -> Attested[AttestationResult]:
    """A caller that could not be attested: it may look, and decides nothing."""
    display = f"pid {peer.pid}"
    caller: ControlCaller[AttestationResult] = ControlCaller(
        uid=peer.uid, pid=peer.pid, result=None, how="", display=display, why_not=why
    )
    return Attested(caller=caller, watch=None)
