"""The class table parses strictly and says what is wrong."""

from __future__ import annotations

import pytest

from attestd.appraisal.classes import extend, parse_class_table
from attestd.appraisal.model import LinkClass
from attestd.errors import PolicyInvalidError
from tests.support.evidence import sha, shipped_table

BASH = '[[entry]]\nclass = "pass"\norigin = "dpkg:bash"\nfiles = ["/bin/bash"]\n'


def table(text: str):
    """Parse a table of this version."""
    return parse_class_table("version = 1\n" + text, "t.toml")


def test_entry():
    """An entry keeps its class, selectors and flags."""
    (entry,) = table(BASH + "shell = true\n").entries
    assert (entry.link_class, entry.origin, entry.files, entry.shell) == (
        LinkClass.PASS,
        "dpkg:bash",
        ("/bin/bash",),
        True,
    )


def test_shipped_table_holds_the_programs_of_the_design():
    """The shipped table parses and has the shells, launchers, edges and build steps that the design names."""
    shipped = shipped_table()
    by_class = {
        kind: {e.origin or e.script_origin for e in shipped.entries if e.link_class is kind} for kind in LinkClass
    }
    assert {f"dpkg:{n}" for n in ("bash", "dash", "zsh", "fish", "busybox", "coreutils", "sudo", "uv")} <= by_class[
        LinkClass.PASS
    ]
    edges = (
        "tmux",
        "screen",
        "openssh-server",
        "login",
        "cron",
        "systemd",
        "gnome-terminal",
        "konsole",
        "xterm",
        "ghostty",
    )
    assert {f"dpkg:{n}" for n in edges} <= by_class[LinkClass.EDGE]
    assert {"dpkg:make", "npm:npm", "python:pip", "dpkg:cargo"} <= by_class[LinkClass.APP]
    assert shipped.title_of("npm:@anthropic-ai/claude-code") == "Claude Code"
    assert shipped.title_of("npm:other") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "unknown key 'x'"),
        (BASH + 'path = "/x"\n', "entry 1: unknown key 'path'"),
        ('[[entry]]\nclass = "relay"\norigin = "dpkg:x"\n', "class is 'relay', expected one of"),
        ('[[entry]]\norigin = "dpkg:x"\n', "class is None"),
        ('[[entry]]\nclass = ["pass"]\n', "class is ['pass']"),
        (BASH + 'name = ""\n', "name is '', expected a non-empty string"),
        (BASH + "shell = 1\n", "shell is 1, expected true or false"),
        ('[[entry]]\nclass = "pass"\norigin = "dpkg:x"\nfiles = []\n', "files is []"),
        ('[[entry]]\nclass = "pass"\norigin = "dpkg:x"\nfiles = "x"\n', "files is 'x'"),
        ('[[entry]]\nclass = "pass"\norigin = "dpkg:x"\nfiles = ["/a", "/a"]\n', "no value twice"),
        ('[[entry]]\nclass = "pass"\norigin = "dpkg:x"\nfiles = ["bash"]\n', "absolute paths"),
        ('[[entry]]\nclass = "pass"\norigin = "bash"\nfiles = ["/a"]\n', "kind:name"),
        ('[[entry]]\nclass = "pass"\nsha256 = "AB"\n', "64 lower-case hex digits"),
        ('[[entry]]\nclass = "pass"\nfiles = ["/a"]\n', "a path alone proves nothing"),
        ('[[entry]]\nclass = "pass"\n', "the selector is 'empty'"),
        ('[[entry]]\nclass = "pass"\norigin = "dpkg:x"\n', "files is 'missing'"),
        (BASH + 'script_files = ["/a"]\n', "a script_origin beside it"),
        (BASH + 'script_origin = "dpkg:npm"\n', "script_files is 'missing'"),
        ('[[entry]]\nclass = "pass"\nscript_origin = "dpkg:npm"\nscript_files = ["/a"]\n', "beside the script"),
        (BASH + "build_step = true\n", "only make things worse"),
        (BASH + "claimed = true\n", "only make things worse"),
        (BASH + "terminal = true\n", "class edge"),
        ('[[entry]]\nclass = "app"\norigin = "dpkg:x"\n', "build_step is 'not set'"),
        ('[[entry]]\nclass = "app"\norigin = "dpkg:x"\nbuild_step = true\nterminal = true\n', "class edge"),
        (BASH + BASH, "entry 2: '/bin/bash' is already in entry 1"),
        ("entry = 3\n", "tables written as [[entry]]"),
        ('names = "x"\n', "a table of package to title"),
        ('[names]\nx = "X"\n', "a key such as npm:@scope/name"),
        ('[names]\n"npm:x" = 1\n', "names.npm:x is 1"),
    ],
)
def test_mistakes_are_named(text: str, expected: str):
    """Each mistake is an error that names the place, what was found and what is allowed."""
    with pytest.raises(PolicyInvalidError) as caught:
        table(text)
    assert expected in caught.value.message
    assert caught.value.message.startswith("cannot use t.toml")


@pytest.mark.parametrize("version", ["2", "true", '"1"', "1.0"])
def test_other_versions_are_refused(version: str):
    """Only the integer 1 is this format."""
    with pytest.raises(PolicyInvalidError, match="version"):
        parse_class_table(f"version = {version}\n")


def test_no_toml():
    """Text that is not TOML is refused with the place."""
    with pytest.raises(PolicyInvalidError, match="cannot parse x: "):
        parse_class_table("version = ", "x")


def test_empty_table_has_no_members():
    """A table without entries parses; nothing is a member then."""
    assert table("").entries == ()


def test_extension_comes_first():
    """An administrator's entries are tried before the shipped ones and the names are laid over them."""
    base = table(BASH + '[names]\n"npm:a" = "A"\n"npm:b" = "B"\n')
    extra = table(f'[[entry]]\nclass = "edge"\nsha256 = "{sha("x")}"\n[names]\n"npm:a" = "AA"\n')
    both = extend(base, extra)
    assert [entry.link_class for entry in both.entries] == [LinkClass.EDGE, LinkClass.PASS]
    assert both.title_of("npm:a") == "AA"
    assert both.title_of("npm:b") == "B"


def test_likely_entries_leave_out_only_what_cannot_match():
    """For every pair of packages of the shipped table, what is passed over demands another package; order is kept."""
    shipped = shipped_table()
    exes = {entry.origin for entry in shipped.entries} | {"npm:unheard-of", ""}
    scripts = {entry.script_origin for entry in shipped.entries} | {"python:unheard-of", ""}
    for exe in exes:
        for script in scripts:
            likely = shipped.likely(exe, script)
            assert list(likely) == [entry for entry in shipped.entries if entry in likely]
            for entry in shipped.entries:
                other = (entry.origin and entry.origin != exe) or (
                    entry.script_origin and entry.script_origin != script
                )
                assert (entry in likely) is not bool(other)
    assert len(shipped._index[2]) <= len(exes) * len(scripts)
