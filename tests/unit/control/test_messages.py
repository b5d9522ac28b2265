"""The names of requests on the wire, and the defaults that they must have."""

from __future__ import annotations

from typing import get_args

import msgspec

from attestd.control import messages as m


def test_every_request_has_its_own_name() -> None:
    """The tags are distinct and stable."""
    tags = [str(each.__struct_config__.tag) for each in get_args(m.AnyRequest)]
    assert len(set(tags)) == len(tags)
    assert " ".join(tags) == (
        "status doctor inspect ps pending pending-show approve deny grants grants-show grants-revoke grants-renew "
        "servers servers-show servers-add servers-trust servers-seal servers-unseal servers-remove explain why audit-tail audit-query audit-verify reload"
    )


def test_terms_without_words_leave_everything_to_the_daemon() -> None:
    """Nothing is granted by a default of this side."""
    assert msgspec.to_builtins(m.Terms()) == {
        "tools": (),
        "all_tools": False,
        "resources": (),
        "prompts": (),
        "server_requests": (),
        "lifetime": "",
        "program": "exact",
        "launched_by": None,
        "inline": False,
        "min_level": 1,
    }


def test_following_is_never_a_default() -> None:
    """A stream without end is asked for."""
    assert not m.TailAudit().follow
