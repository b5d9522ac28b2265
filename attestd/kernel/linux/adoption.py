"""Whether the parent that the kernel names is the one that started the process.

When a parent exits, the kernel gives its children to the nearest ancestor that called PR_SET_CHILD_SUBREAPER, else to
pid 1, and says nothing about it. What can be seen from the outside, without a recorder:

- a parent younger than its child never started it;
- a session is inherited unless the process leads one: a child that leads none and is not in its parent's session was
  started by someone else (or its parent made a session of its own after starting it; that rare case is counted the
  same way);
- of a parent that has exited itself (``dead``, known from process events) neither session nor control group is known;
- systemd (every instance lives in an ``init.scope``) starts services; what runs in any other ``.scope`` was started by
  another program and registered, so if systemd is its parent it was adopted. Except for login(1) and its like: agetty,
  a service, *becomes* login, which pam_systemd registers with the session that it makes. So a process that is wholly
  root's and leads its session stays undecided.

Where none of this shows, a child of pid 1 or of a systemd instance stays undecided (None): a double fork with
setsid(2) looks exactly like a service. A child adopted by any *other* subreaper that leads a session of its own, or
shares the subreaper's session, cannot be told from a true child at all, for ``/proc`` does not show who is a
subreaper; docs/limitations says so.
"""

from __future__ import annotations

from attestd.evidence.model import Link

_MANAGER_SCOPE = "/init.scope"
_ROOT = (0, 0, 0, 0)


def adopted(child: Link, parent: Link) -> bool | None:
    """Whether ``parent`` did not start ``child``. None: cannot be told. False: no sign of it, and no known reaper."""
    if parent.start_ticks > child.start_ticks:
        return True
    if not child.dead and child.session not in (child.pid, parent.session):
        return True
    by_systemd = parent.cgroup.endswith(_MANAGER_SCOPE)
    if by_systemd and not child.dead and child.cgroup.endswith(".scope") and child.cgroup != parent.cgroup:
        return None if child.uids == _ROOT and child.session == child.pid else True
    return None if by_systemd or parent.pid == 1 else False
