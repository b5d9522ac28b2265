"""The running service: kernel, launcher, daemon and control socket, started together and ended together."""

from __future__ import annotations

import asyncio
import logging
import socket

from attestd.appraisal.approver import may_approve
from attestd.appraisal.model import AttestationResult
from attestd.control.service import ControlCaller
from attestd.daemon.answers import Answers
from attestd.daemon.app import Daemon
from attestd.daemon.control_server import Attested, ControlServer
from attestd.daemon.paths import Paths
from attestd.daemon.platforms import host_id, open_platform
from attestd.enforcement.workers import TooSlowError
from attestd.errors import AttestdError, EvidenceError
from attestd.evidence.model import Peer
from attestd.launch.client import ProcessLauncher
from attestd.launch.system_client import SystemLauncher
from attestd.mediation import Attested as Bound
from attestd.mediation import attest

LOG = logging.getLogger("attestd")


class Serving:
    """One instance; made and closed on the loop's thread."""

    def __init__(self, paths: Paths, recorder_root: str | None = None, *, process_events: bool = True) -> None:
        """Start everything. Raises AttestdError, and then nothing is left running."""
        loop = asyncio.get_running_loop()
        self._platform = platform = open_platform(paths.state, recorder_root, process_events=process_events)
        try:
            self.daemon = Daemon(
                paths=paths,
                kernel=platform.kernel,
                recorder=platform.recorder,
                launcher=ProcessLauncher() if paths.user_mode else SystemLauncher(paths.launcher),
                host_id=host_id() or "unknown",
                acceptors=platform.acceptors,
                sealer=platform.sealer,
            )
        except BaseException:
            platform.close()
            raise
        loop.set_exception_handler(self._bug_in_loop)
        self._control: ControlServer[AttestationResult] = ControlServer(
            path=paths.control,
            service=Answers(self.daemon),
            peer_of=self.daemon.kernel.peer,
            attest=self._attest,
            only_uid=paths.runtime.stat().st_uid if paths.user_mode else None,
            on_bug=self._bug,
            mode=0o600 if paths.user_mode else 0o666,
        )
        try:
            self._control.start()
        except BaseException:
            self.daemon.abandon()
            platform.close()
            raise

    async def close(self) -> None:
        """End everything in order."""
        await self._control.close()
        await self.daemon.close()
        self._platform.close()

    def reload_signalled(self) -> None:
        """SIGHUP: a bad configuration is noted, and the old one stays."""
        try:
            self.daemon.reload()
        except AttestdError as error:
            LOG.warning("reload refused: %s", error.message)
            self.daemon.trouble(f"reload refused: {error.message}")

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
                attest, daemon.kernel, held.fileno(), peer, appraiser, seconds=seconds, late=late
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
