"""What of BPF this kernel offers, tried with the smallest programs."""

from __future__ import annotations

import errno
import os

import pytest

from attestd.kernel.linux.recorder import bpf, probes
from attestd.kernel.linux.recorder.probes import NotProbedError

TRIED = [
    probes.traced_events,
    probes.task_storage,
    probes.connect_inet,
    probes.connect_unix,
    probes.task_in_cgroup_programs,
]


@pytest.mark.root
@pytest.mark.parametrize("probe", TRIED)
def test_programs_are_accepted_and_closed(probe):
    """As root on this kernel each is accepted, and its descriptor is gone."""
    probe()
    before = len(os.listdir("/proc/self/fd"))
    assert probe()
    assert len(os.listdir("/proc/self/fd")) == before
    probes.forget()


@pytest.mark.ordinary
@pytest.mark.parametrize("probe", TRIED)
def test_without_the_right_nothing_is_known(probe):
    """EPERM is about who asks."""
    with pytest.raises(NotProbedError):
        probe()


@pytest.mark.parametrize("probe", [probes.traced_events, probes.connect_inet, probes.task_in_cgroup_programs])
def test_a_kernel_that_refuses_the_program_does_not_have_it(monkeypatch: pytest.MonkeyPatch, probe):
    """Any other refusal is the kernel's answer."""

    def refuse(*_: object, **__: object) -> int:
        raise bpf.VerifierError(errno.EINVAL, "unknown func")

    monkeypatch.setattr(bpf, "program_load", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        probe()


def test_a_kernel_without_the_name_does_not_have_it(monkeypatch: pytest.MonkeyPatch):
    """The attach type of Unix connects is younger than the others."""
    monkeypatch.setattr(probes, "_types", Nothing)
    with pytest.raises(OSError, match="BPF_CGROUP_UNIX_CONNECT"):
        probes.connect_unix()
    with pytest.raises(OSError, match="btf_trace_sched_process_fork"):
        probes.traced_events()


class Nothing:
    """Type information that names nothing."""

    def named(self, _name: str, _kinds: object) -> tuple[()]:
        return ()
