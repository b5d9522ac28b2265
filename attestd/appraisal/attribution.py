"""Who is the accountable client. Each rule keeps its number in the code.

1 The accountable client is the nearest link that is neither RELAY nor PASS.
2 If that is EDGE, or the chain ends, the caller is a person at a terminal, else an orphan. Accountable is then the
  outermost link below the EDGE: the shell the person types into.
3 Consecutive links with the same, known code and the same uids collapse to the topmost.
4 A link without a readable identity is accountable itself.
5 PASS with inline code passes but marks the request; the exception is a shell whose text is exactly the command line
  of the shim directly below it.
6 Broken parenthood makes an orphan: nothing above the break is an ancestor. An adopted link (``reparented`` True)
  breaks the chain, and so does a chain that is too long or stops being readable before an EDGE. Where adoption cannot
  be told (None) on the path of the call, it counts as one. A parent that is gone above the accountable client hides
  only who launched it: that counts as one more launcher, unknown, which a grant must accept by name.
7 Launch context: from the accountable client to the first EDGE every link must be PASS or the same code; any other is a
  launcher that a grant must name.
8 Membership in PASS or RELAY needs a file that the caller cannot write (``membership``).
"""

from __future__ import annotations

import shlex

import msgspec

from attestd.appraisal.digests import code_known, program_digest
from attestd.appraisal.membership import Membership
from attestd.appraisal.model import CallerKind, LinkClass
from attestd.evidence.model import Evidence, Link

_TRANSPARENT = (LinkClass.RELAY, LinkClass.PASS)
_SHIM = "attestd-connect"
_TEXT_LIMIT = 4096
_SHELL_SYNTAX = frozenset(";&|<>()$`\\\n\r*?[]{}!#~")


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Who is accountable, and what stands between."""

    kind: CallerKind
    accountable: int
    edge: int | None
    """Index of the first EDGE; None if the chain ended before one."""
    last: int
    """Index of the outermost link that is an ancestor of the peer and below the first EDGE."""
    broken: str
    """Code of the reason that makes the caller an orphan, or an empty string."""
    end: str
    """How the chain digest ends without an EDGE, or an empty string."""
    inline: bool
    launchers: tuple[int, ...]
    unknown_launcher: int | None
    """Index of the first launching link of which it is not known who started it."""
    programs: tuple[str, ...]
    """Program digest of every link."""


class _Extent(msgspec.Struct, frozen=True, kw_only=True):
    edge: int | None
    last: int
    broken: str
    end: str


def attribute(evidence: Evidence, members: tuple[Membership, ...]) -> Attribution:
    """Apply rules 1 to 7 to a chain of at least one link."""
    chain = evidence.chain
    programs = tuple(program_digest(link) for link in chain)
    extent = _extent(evidence, members)
    ancestors = range(extent.last + 1)
    # 1, 4: HOST, APP and UNREADABLE alike
    nearest = next((i for i in ancestors if members[i].link_class not in _TRANSPARENT), None)
    if extent.edge == 0 or nearest is None:
        # 2
        accountable = extent.last
        broken = extent.broken or _adopted_below(chain, members, accountable)
        broken = broken or ("" if chain[accountable].tty is not None else "no-terminal")
        kind = CallerKind.ORPHAN if broken else CallerKind.INTERACTIVE
    else:
        accountable = _collapse(chain, programs, nearest, extent.last)  # 3
        above = extent.broken == "orphan" and extent.last > accountable
        broken = ("" if above else extent.broken) or _adopted_below(chain, members, accountable)  # 6
        kind = CallerKind.ORPHAN if broken else CallerKind.PROGRAM
    return Attribution(
        kind=kind,
        accountable=accountable,
        edge=extent.edge,
        last=extent.last,
        broken=broken,
        end=extent.end,
        inline=any(_marks_inline(chain, members, i) for i in range(accountable + 1)),  # 5
        launchers=_launchers(chain, members, programs, range(accountable + 1, extent.last + 1)),  # 7
        unknown_launcher=_unknown(chain, extent, accountable),
        programs=programs,
    )


def _unknown(chain: tuple[Link, ...], extent: _Extent, accountable: int) -> int | None:
    """6: the first link above the accountable client of which it is not known who started it."""
    for index in range(accountable + 1, extent.last + 1):
        if chain[index].reparented is not False or (extent.broken and index == extent.last):
            return index
    return None


def _extent(evidence: Evidence, members: tuple[Membership, ...]) -> _Extent:
    """6: how far the chain is one of ancestors."""
    for index, member in enumerate(members):
        if member.link_class is LinkClass.EDGE:
            return _Extent(edge=index, last=max(index - 1, 0), broken="", end="")
        if evidence.chain[index].reparented is True:
            return _Extent(edge=None, last=index, broken="orphan", end="broken")
    last = len(members) - 1
    if evidence.end == "namespace":
        return _Extent(edge=None, last=last, broken="", end="namespace")
    codes = {"limit": "chain-limit", "unreadable": "chain-unreadable"}
    end = evidence.end if evidence.end in codes else "broken"
    return _Extent(edge=None, last=last, broken=codes.get(end, "orphan"), end=end)


def _adopted_below(chain: tuple[Link, ...], members: tuple[Membership, ...], accountable: int) -> str:
    """6: the code of the reason if some link up to the accountable one may have been adopted."""
    path = range(accountable + 1)
    adopted = any(chain[i].reparented is None and members[i].link_class is not LinkClass.EDGE for i in path)
    return "orphan" if adopted else ""


def _collapse(chain: tuple[Link, ...], programs: tuple[str, ...], start: int, last: int) -> int:
    index = start
    while index < last and _same_code(chain, programs, index, index + 1):
        index += 1
    return index


def _same_code(chain: tuple[Link, ...], programs: tuple[str, ...], one: int, other: int) -> bool:
    equal = programs[one] == programs[other] and chain[one].uids == chain[other].uids
    return equal and code_known(chain[one])


def _launchers(
    chain: tuple[Link, ...], members: tuple[Membership, ...], programs: tuple[str, ...], above: range
) -> tuple[int, ...]:
    accountable = above.start - 1
    found: dict[str, int] = {}
    for index in above:
        same = programs[index] == programs[accountable] and code_known(chain[index])
        if members[index].link_class is not LinkClass.PASS and not same:
            found.setdefault(programs[index], index)
    return tuple(found.values())


def _marks_inline(chain: tuple[Link, ...], members: tuple[Membership, ...], index: int) -> bool:
    script = chain[index].script
    if members[index].link_class is not LinkClass.PASS or script is None:
        return False
    if script.kind not in ("inline", "stdin"):
        return False
    relay_below = index > 0 and members[index - 1].link_class is LinkClass.RELAY
    return not (relay_below and is_shim_command(script.text, chain[index - 1]))


def is_shim_command(text: str, relay: Link) -> bool:
    """Whether the inline text is exactly the command line of this relay: ``[…/]attestd-connect SERVER [options]``.

    Words are compared after shell quoting; any other syntax of the shell makes it more than a command line.
    """
    if not text or len(text) >= _TEXT_LIMIT or _SHELL_SYNTAX.intersection(text) or relay.script is None:
        return False
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    if len(words) < 2 or _base(words[0]) != _SHIM:
        return False
    position = next((i for i, word in enumerate(relay.argv) if i > 0 and word == relay.script.name), None)
    if position is None or _base(relay.argv[position]) != _SHIM:
        return False
    return tuple(words[1:]) == relay.argv[position + 1 :]


def _base(path: str) -> str:
    return path.rpartition("/")[2]
