"""Step 0 on macOS: the kernel's word on the other end of a Unix socket.

Rules: LOCAL_PEERCRED has the uid and groups of the moment of connect. LOCAL_PEERTOKEN is made anew at every call, of
the process whose pid used the other end *last*: right after connect that is the connector, later it is whoever wrote
or read there last, and if that process has exited the call fails. A pid that is in use again gives the token of its
new owner. So the token's pid and pid version are pinned here, and whoever has them is held by its unique id.
"""

from __future__ import annotations

import errno

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Peer
from attestd.kernel.darwin.libsystem import System


def read_peer(system: System, sock_fd: int) -> Peer:
    """The connector of a Unix socket.

    Raises:
        EvidenceError: PEER_GONE - it has exited or hung up; UNATTESTABLE - not a connected Unix stream socket, or
            another uid uses it than connected it.
        OSError: no descriptors or memory are left; that says nothing about the peer.
    """
    try:
        connected = system.credentials(sock_fd)
        token = system.token(sock_fd)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTCONN, errno.ESRCH):
            raise EvidenceError(Cause.PEER_GONE, "cannot attest the peer: it has exited or hung up") from error
        if error.errno in (errno.ENOPROTOOPT, errno.EPROTO, errno.ENOTSOCK, errno.EOPNOTSUPP):
            raise EvidenceError(
                Cause.UNATTESTABLE, "cannot attest the peer: this socket carries no peer credentials"
            ) from error
        raise
    if token.pid <= 0:
        raise EvidenceError(Cause.UNATTESTABLE, f"cannot attest the peer: got process {token.pid} from the kernel")
    if token.euid != connected.cr_uid:
        raise EvidenceError(
            Cause.UNATTESTABLE,
            f"cannot attest the peer: uid {connected.cr_uid} connected, and a process of uid {token.euid} uses it",
        )
    groups = tuple(connected.cr_groups[: connected.cr_ngroups])
    return Peer(
        pid=token.pid,
        uid=connected.cr_uid,
        gid=groups[0] if groups else 0,
        groups=groups,
        security_label=None,
        source="token",
        pid_version=token.version,
    )
