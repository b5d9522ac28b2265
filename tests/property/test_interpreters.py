"""Whatever a command line says, its reading neither raises nor invents a script."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from attestd.evidence import posture
from attestd.evidence.interpreters import parse_argv

FAMILIES = ["node", "python", "shell", "perl", "ruby", "java", "deno", "bun", "php", "other", "nonsense"]
FIRST = [
    "node",
    "python3",
    "bash",
    "dash",
    "zsh",
    "fish",
    "busybox",
    "perl",
    "ruby",
    "java",
    "deno",
    "bun",
    "php",
    "x",
    "",
]
WORDS = [
    "-",
    "--",
    "-c",
    "-e",
    "-m",
    "-i",
    "-o",
    "-O",
    "+o",
    "-f",
    "-s",
    "-S",
    "-x",
    "-W",
    "-X",
    "-l",
    "-0",
    "-r",
    "-p",
    "-pe",
    "run",
    "eval",
    "sh",
    "-jar",
    "-cp",
    "--source",
    "@a",
    "a.js",
    "./a",
    "a.java",
    "--eval=x",
    "--require",
    "--print",
    "--rcfile",
    "--disable",
    "--define",
    "-C",
    "-I",
    "�",
    "",
]

words = st.lists(
    st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.from_regex(r"--?[a-z=-]{0,8}", fullmatch=True))
)


@given(
    family=st.sampled_from(FAMILIES),
    first=st.sampled_from(FIRST),
    rest=words,
    exe=st.sampled_from(["", "/usr/bin/bash", "/usr/bin/fish", "/bin/busybox", "/bin/dash"]),
)
@example(family="php", first="php", rest=["-fa.php"], exe="")
@example(family="shell", first="bash", rest=["-oo", "x"], exe="/usr/bin/bash")
def test_a_script_is_always_a_word_of_the_command_line(family: str, first: str, rest: list[str], exe: str):
    """Invariant: no exception; a script or module is never empty, and a script is one of argv[1:]."""
    spec = parse_argv(family, [first, *rest], exe)
    assert spec.kind in {"script", "module", "inline", "stdin", "none", "unresolved"}
    if spec.kind == "script":
        assert spec.argument in rest
    if spec.kind in {"script", "module"}:
        assert spec.argument
    if spec.kind == "inline":
        assert all(line in "\n".join(rest) for line in spec.text.split("\n"))
    assert bool(spec.text) <= (spec.kind == "inline")


@given(family=st.sampled_from([None, *FAMILIES]), first=st.sampled_from(FIRST), rest=words)
def test_posture_of_any_command_line_is_printable(family: str | None, first: str, rest: list[str]):
    """Invariant: entries are printable ASCII, sorted, short and without doubles."""
    found = posture.from_argv(family, [first, *rest])
    assert list(found) == sorted(set(found))
    assert all(entry.isascii() and entry.isprintable() and len(entry) <= 200 for entry in found)


@given(raw=st.binary(max_size=400), family=st.sampled_from([None, *FAMILIES]))
@example(raw=b"LD_PRELOAD=\x1b]0;x\x07\0", family=None)
def test_posture_of_any_environment_is_printable(raw: bytes, family: str | None):
    """Invariant: any environment gives printable, sorted entries and no exception."""
    found = posture.from_environ(posture.entries(raw), family)
    assert list(found) == sorted(set(found))
    assert all(entry.isascii() and entry.isprintable() for entry in found)
