"""One root for every error that a person may read, and the closed set of causes of a refusal.

An ``AttestdError`` is *their* fault or the world's: it says what was refused, got versus expected, and what to do,
and it has a stable code and a documented exit code. Our own bugs are ordinary Python exceptions and never of this
family. A ``Cause`` is why a request was refused; the set is closed and each member has a page in the reference.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes of every program of attestd."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    NOT_PERMITTED = 4
    UNREACHABLE = 5
    POLICY_INVALID = 6
    INTEGRITY_BROKEN = 7
    INTERNAL = 8
    NOTHING_TO_DO = 9


class AttestdError(Exception):
    """Root of the errors that are shown to a person.

    ``message`` says what was refused with got versus expected, lower case, without a final stop; ``hint`` says what
    to do.
    """

    code = "failed"
    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AttestdError):
    """The words of the command are off."""

    code = "usage"
    exit_code = ExitCode.USAGE


class ConfigurationError(AttestdError):
    """A configuration file, directory or socket path is not as it must be."""

    code = "configuration"
    exit_code = ExitCode.CONFIGURATION


class NotPermittedError(AttestdError):
    """The caller may not do this."""

    code = "not_permitted"
    exit_code = ExitCode.NOT_PERMITTED


class AgentNeededError(NotPermittedError):
    """A password must be given, and no program is there yet that could ask for it."""

    code = "agent_needed"


class UnreachableError(AttestdError):
    """The daemon cannot be reached, or what answers is not the daemon."""

    code = "unreachable"
    exit_code = ExitCode.UNREACHABLE


class PolicyInvalidError(AttestdError):
    """A policy, schema or class table does not parse or does not validate."""

    code = "policy_invalid"
    exit_code = ExitCode.POLICY_INVALID


class IntegrityError(AttestdError):
    """The audit log or the store is not what was written."""

    code = "integrity_broken"
    exit_code = ExitCode.INTEGRITY_BROKEN


class NothingToDoError(AttestdError):
    """Nothing matched; nothing was changed."""

    code = "nothing_to_do"
    exit_code = ExitCode.NOTHING_TO_DO


class AuditUnavailableError(AttestdError):
    """A record cannot be appended (disk full, I/O error): the effect it precedes must not happen."""

    code = "audit_unavailable"


class EvidenceError(AttestdError):
    """Evidence about a process cannot be collected; ``cause`` is the refusal it leads to."""

    code = "evidence"

    def __init__(self, cause: Cause, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class Cause(StrEnum):
    """Why a request was refused. Closed; values are stable and appear in refusals, the audit log and the reference."""

    # the caller
    PEER_GONE = "peer_gone"  # the peer exited before or while it was attested
    FOREIGN_NAMESPACE = "foreign_namespace"  # pid 0, or a user or pid namespace that is not ours
    INCONSISTENT = "inconsistent"  # facts kept changing while they were read
    UNATTESTABLE = "unattestable"  # level 0: memfd, traced, orphan, ambiguous, unreadable
    TRACED = "traced"  # a debugger is attached
    WRITER_MISMATCH = "writer_mismatch"  # these bytes were not written by the attested peer
    IMAGE_CHANGED = "image_changed"  # the peer or the accountable client executed another program
    CHAIN_CHANGED = "chain_changed"  # an attested ancestor is no longer the parent
    UNPROVEN = "unproven"  # bytes that may be older than the attestation
    # the decision
    NO_GRANT = "no_grant"
    LEVEL_TOO_LOW = "level_too_low"
    LAUNCHER = "launcher"  # launched by a program that the grant does not name
    INLINE = "inline"  # passed through inline code, and the grant does not accept it
    SEARCH_PATH = "search_path"  # started with a code search path (PYTHONPATH, a venv) that the grant does not name
    EXPIRED = "expired"
    OUT_OF_SCOPE = "out_of_scope"  # a grant for this server exists, not for this tool, resource or prompt
    POLICY_FORBID = "policy_forbid"
    POLICY_ERROR = "policy_error"
    SERVER_REQUEST = "server_request"  # a request of the server to the client that no grant accepts
    # the message
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    BATCH = "batch"
    UNKNOWN_METHOD = "unknown_method"
    NOT_OUTSTANDING = "not_outstanding"  # a response, cancellation or progress that matches nothing of this caller
    NOT_FOUND = "not_found"  # a task, subscription or session that is not this caller's
    ERA = "era"  # what one protocol era has and the other has not, between a client and a server of different eras
    SHARED_STATE = "shared_state"  # would change a shared server for its other callers
    # limits and the world
    LIMIT_CONNECTIONS = "limit_connections"
    LIMIT_REQUESTS = "limit_requests"
    SERVER_UNAVAILABLE = "server_unavailable"
    SERVER_UNTRUSTED = "server_untrusted"  # the back end is not the program or user that it must be
    SERVER_MALFORMED = "server_malformed"  # the back end answered with something that is not MCP
    AUDIT_UNAVAILABLE = "audit_unavailable"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"
    # approving
    NOT_APPROVER = "not_approver"
    BAD_CODE = "bad_code"
