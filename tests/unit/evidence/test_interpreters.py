"""Command lines and what they make an interpreter run: literal tables, one row per rule of the option readers."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from attestd.evidence.interpreters import family, node, parse_argv
from attestd.evidence.interpreters.shell import dialect

FAMILIES = [
    ("/usr/bin/python3.11", "python"),
    ("/opt/venv/bin/python", "python"),
    ("/x/pypy3.10", "python"),
    ("/x/python3.13t", "python"),
    ("/usr/bin/node", "node"),
    ("/usr/bin/nodejs", "node"),
    ("/x/node (deleted)", "node"),
    ("/usr/bin/bash", "shell"),
    ("/usr/bin/dash", "shell"),
    ("/bin/busybox", "shell"),
    ("/usr/bin/fish", "shell"),
    ("/usr/bin/zsh-5.9", "shell"),
    ("/usr/bin/ksh93", "shell"),
    ("/usr/bin/perl5.36.0", "perl"),
    ("/usr/bin/perl5.36-x86_64-linux-gnu", "perl"),
    ("/usr/bin/ruby3.1", "ruby"),
    ("/usr/lib/jvm/x/bin/java", "java"),
    ("/x/deno", "deno"),
    ("/x/node_modules/bun/bin/bun.exe", "bun"),
    ("/usr/bin/php8.2", "php"),
    ("/usr/bin/lua5.4", "other"),
    ("/usr/bin/mawk", "other"),
    ("/opt/app/electron", "other"),
    ("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "other"),
    ("/lib/ld-musl-x86_64.so.1", "other"),
    ("/usr/lib/x86_64-linux-gnu/ld-2.31.so", "other"),
    ("/usr/bin/qemu-x86_64-static", "other"),
    ("/usr/bin/timeout", None),
    ("/usr/bin/nice", None),
    ("/usr/bin/env", None),
    ("/usr/bin/python3-config", None),
    ("/usr/bin/nodemon", None),
    ("/usr/bin/sha256sum", None),
    ("/home/u/claude", None),
    ("", None),
]

Row = tuple[str, str, str, str]

RUNS: list[Row] = [
    # python
    ("python", "python3 a.py x", "script", "a.py"),
    ("python", "python3 -u -W ignore -X dev a.py", "script", "a.py"),
    ("python", "python3 -uW ignore a.py", "script", "a.py"),
    ("python", "python3 -Wignore a.py -c x", "script", "a.py"),
    ("python", "python3 -- a.py", "script", "a.py"),
    ("python", "python3 --check-hash-based-pycs never a.py", "script", "a.py"),
    ("python", "python3 --check-hash-based-pycs=never a.py", "unresolved", ""),
    ("python", "python3 -Im mod x", "module", "mod"),
    ("python", "python3 -mmod x", "module", "mod"),
    ("python", "python3 -m", "unresolved", ""),
    ("python", "python3 -m a.py -c", "module", "a.py"),
    ("python", "python3 -Bc code x", "inline", "code"),
    ("python", "python3 -ccode x", "inline", "code"),
    ("python", "python3 -", "stdin", ""),
    ("python", "python3 - a.py", "stdin", ""),
    ("python", "python3", "none", ""),
    ("python", "python3 -i", "none", ""),
    ("python", "python3 -Z a.py", "unresolved", ""),
    ("python", "python3 --new a.py", "unresolved", ""),
    ("python", "fake a.py", "unresolved", ""),
    ("python", "node a.py", "unresolved", ""),
    # node
    ("node", "node a.js --require x", "script", "a.js"),
    ("node", "node --max-old-space-size=4096 --enable-source-maps a.js", "script", "a.js"),
    ("node", "node --max_old_space_size=4096 a.js", "script", "a.js"),
    ("node", "node --stack-size 100 a.js", "script", "100"),
    ("node", "node --no-warnings --no-deprecation a.js", "script", "a.js"),
    ("node", "node -r ./x.js a.js", "script", "a.js"),
    ("node", "node --require=./x.js a.js", "script", "a.js"),
    ("node", "node --import ./x.mjs a.js", "script", "a.js"),
    ("node", "node --require -x a.js", "unresolved", ""),
    ("node", "node --inspect=0.0.0.0:9229 a.js", "script", "a.js"),
    ("node", "node --inspect a.js", "script", "a.js"),
    ("node", "node --conditions dev a.js", "script", "a.js"),
    ("node", "node -- a.js", "script", "a.js"),
    ("node", "node -e code a.js", "inline", "code"),
    ("node", "node --eval=code", "inline", "code"),
    ("node", "node -p code", "inline", "code"),
    ("node", "node -pe code", "inline", "code"),
    ("node", "node -p -e code", "inline", "code"),
    ("node", "node -p", "stdin", ""),
    ("node", "node -", "stdin", ""),
    ("node", "node", "none", ""),
    ("node", "node -i", "none", ""),
    ("node", "node inspect a.js", "unresolved", ""),
    ("node", "node --run build", "unresolved", ""),
    ("node", "node --test a.js", "unresolved", ""),
    ("node", "node --watch a.js", "unresolved", ""),
    ("node", "node --snapshot-blob x a.js", "unresolved", ""),
    ("node", "node --check a.js", "unresolved", ""),
    ("node", "node --entry-url https://x", "unresolved", ""),
    ("node", "node --of-the-future a.js", "unresolved", ""),
    ("node", "node --enable-source-maps=x a.js", "unresolved", ""),
    ("node", "claude", "unresolved", ""),
    # shell
    ("shell", "bash a.sh", "script", "a.sh"),
    ("shell", "-bash", "none", ""),
    ("shell", "bash -euo pipefail a.sh", "script", "a.sh"),
    ("shell", "bash -eo pipefail -c text name", "inline", "text"),
    ("shell", "bash -c -e text", "inline", "text"),
    ("shell", "bash -lc text", "inline", "text"),
    ("shell", "bash -c", "unresolved", ""),
    ("shell", "bash --rcfile f a.sh", "script", "a.sh"),
    ("shell", "bash --rcfile f", "none", ""),
    ("shell", "bash --norc --noprofile a.sh", "script", "a.sh"),
    ("shell", "bash -norc a.sh", "unresolved", ""),
    ("shell", "bash -O extglob a.sh", "script", "a.sh"),
    ("shell", "bash +O extglob +e a.sh", "script", "a.sh"),
    ("shell", "bash -s a.sh", "stdin", ""),
    ("shell", "bash - a.sh", "script", "a.sh"),
    ("shell", "bash -- -x", "script", "-x"),
    ("shell", "bash -", "none", ""),
    ("shell", "bash --dance a.sh", "unresolved", ""),
    ("shell", "dash -e a.sh", "script", "a.sh"),
    ("shell", "dash -o errexit a.sh", "script", "a.sh"),
    ("shell", "sh -c text", "inline", "text"),
    ("shell", "sh -O extglob a.sh", "unresolved", ""),
    ("shell", "dash -T x a.sh", "unresolved", ""),
    ("shell", "zsh -f a.zsh", "script", "a.zsh"),
    ("shell", "zsh -oextendedglob a.zsh", "unresolved", ""),
    ("shell", "zsh -b a.zsh", "unresolved", ""),
    ("shell", "mksh -T x a.sh", "unresolved", ""),
    ("shell", "fish -c text x", "inline", "text"),
    ("shell", "fish -l a.fish", "script", "a.fish"),
    ("shell", "fish -f features a.fish", "unresolved", ""),
    ("shell", "busybox sh a.sh", "script", "a.sh"),
    ("shell", "busybox ash -c text", "inline", "text"),
    ("shell", "busybox awk x", "unresolved", ""),
    ("shell", "busybox", "unresolved", ""),
    # perl
    ("perl", "perl a.pl -e x", "script", "a.pl"),
    ("perl", "perl -w -Mstrict -I lib a.pl", "script", "a.pl"),
    ("perl", "perl -lane code x", "inline", "code"),
    ("perl", "perl -0777 -ne code", "inline", "code"),
    ("perl", "perl -l012we code", "inline", "code"),
    ("perl", "perl -ecode", "inline", "code"),
    ("perl", "perl -e one -e two x", "inline", "one\ntwo"),
    ("perl", "perl -E code", "inline", "code"),
    ("perl", "perl -i.bak -pe code", "inline", "code"),
    ("perl", "perl -x/tmp a.pl", "unresolved", ""),
    ("perl", "perl -x a.pl", "script", "a.pl"),
    ("perl", "perl -CSD a.pl", "script", "a.pl"),
    ("perl", "perl -d:NYTProf a.pl", "script", "a.pl"),
    ("perl", "perl -", "stdin", ""),
    ("perl", "perl", "none", ""),
    ("perl", "perl -k a.pl", "unresolved", ""),
    ("perl", "perl --help a.pl", "unresolved", ""),
    # ruby
    ("ruby", "ruby a.rb", "script", "a.rb"),
    ("ruby", "ruby -w -I lib -rjson a.rb", "script", "a.rb"),
    ("ruby", "ruby -W:no-deprecated a.rb", "script", "a.rb"),
    ("ruby", "ruby -W0 -r json a.rb", "script", "a.rb"),
    ("ruby", "ruby -W 0 a.rb", "script", "0"),
    ("ruby", "ruby -Ku a.rb", "script", "a.rb"),
    ("ruby", "ruby --disable gems a.rb", "script", "a.rb"),
    ("ruby", "ruby --disable=gems --yjit a.rb", "script", "a.rb"),
    ("ruby", "ruby --encoding utf-8 a.rb", "script", "a.rb"),
    ("ruby", "ruby -ne one -e two", "inline", "one\ntwo"),
    ("ruby", "ruby -ecode x", "inline", "code"),
    ("ruby", "ruby -", "stdin", ""),
    ("ruby", "ruby -xdir a.rb", "unresolved", ""),
    ("ruby", "ruby --jet a.rb", "unresolved", ""),
    # java
    ("java", "java -jar a.jar x", "script", "a.jar"),
    ("java", "java -jar -Xmx1g a.jar", "script", "a.jar"),
    ("java", "java -Dx=y -XX:+UseZGC -jar a.jar", "script", "a.jar"),
    ("java", "java -cp x:y com.x.Main -jar", "module", "com.x.Main"),
    ("java", "java --class-path=x com.x.Main", "module", "com.x.Main"),
    ("java", "java Main.java", "script", "Main.java"),
    ("java", "java -cp x Main.java", "script", "Main.java"),
    ("java", "java --source 21 main x", "script", "main"),
    ("java", "java -jar Main.java", "script", "Main.java"),
    ("java", "java @args a.jar", "unresolved", ""),
    ("java", "java -Dx @args -jar a.jar", "unresolved", ""),
    ("java", "java -m mod/Main", "unresolved", ""),
    ("java", "java -Djava.class.path=x Main", "unresolved", ""),
    ("java", "java --of-the-future x Main", "unresolved", ""),
    ("java", "java", "unresolved", ""),
    # deno
    ("deno", "deno run -A --allow-read=/x a.ts", "script", "a.ts"),
    ("deno", "deno run --allow-net a.ts", "script", "a.ts"),
    ("deno", "deno run -c deno.json --import-map m.json a.ts", "script", "a.ts"),
    ("deno", "deno run --no-check -q ./a.ts x", "script", "./a.ts"),
    ("deno", "deno a.ts", "script", "a.ts"),
    ("deno", "deno run https://x/y.ts", "unresolved", ""),
    ("deno", "deno run npm:cowsay", "unresolved", ""),
    ("deno", "deno task build", "unresolved", ""),
    ("deno", "deno eval code", "inline", "code"),
    ("deno", "deno eval -p code", "inline", "code"),
    ("deno", "deno run -", "stdin", ""),
    ("deno", "deno test a.ts", "unresolved", ""),
    ("deno", "deno", "none", ""),
    ("deno", "deno run --of-the-future a.ts", "unresolved", ""),
    # bun
    ("bun", "bun a.ts", "script", "a.ts"),
    ("bun", "bun --bun ./x", "script", "./x"),
    ("bun", "bun run ./a.ts", "script", "./a.ts"),
    ("bun", "bun run --silent /x/a.ts", "script", "/x/a.ts"),
    ("bun", "bun run a.ts", "unresolved", ""),
    ("bun", "bun run dev", "unresolved", ""),
    ("bun", "bun dev", "unresolved", ""),
    ("bun", "bun x cowsay", "unresolved", ""),
    ("bun", "bunx cowsay", "unresolved", ""),
    ("bun", "bunx ./a.ts", "unresolved", ""),
    ("bun", "bun --cwd /x a.ts", "unresolved", ""),
    ("bun", "bun -e code", "inline", "code"),
    ("bun", "bun --print=code", "inline", "code"),
    ("bun", "bun --preload ./p.ts a.ts", "script", "a.ts"),
    ("bun", "bun run -", "stdin", ""),
    ("bun", "bun", "unresolved", ""),
    # php
    ("php", "php a.php -r x", "script", "a.php"),
    ("php", "php -d memory_limit=1G a.php", "script", "a.php"),
    ("php", "php -f a.php -- x", "script", "a.php"),
    ("php", "php -fa.php", "unresolved", ""),
    ("php", "php -r code", "inline", "code"),
    ("php", "php --run code", "inline", "code"),
    ("php", "php -S localhost:80 a.php", "unresolved", ""),
    ("php", "php -- a.php", "none", ""),
    ("php", "php -", "stdin", ""),
    ("php", "php -R code", "unresolved", ""),
    ("php", "php -a", "unresolved", ""),
    # no table
    ("other", "lua a.lua", "unresolved", ""),
]


@pytest.mark.parametrize(("path", "expected"), FAMILIES)
def test_family(path: str, expected: str | None):
    """The base name of the real executable says which family, or none."""
    assert family(path) == expected


@pytest.mark.parametrize(("name", "line", "kind", "what"), RUNS, ids=[row[1] for row in RUNS])
def test_command_line(name: str, line: str, kind: str, what: str):
    """Each command line gives its kind, and its script, module or inline text."""
    argv = line.split(" ")
    exe = "" if name != "shell" else "/bin/" + argv[0].removeprefix("-")
    spec = parse_argv(name, argv, exe)
    assert spec.kind == kind
    assert {"script": spec.argument, "module": spec.argument, "inline": spec.text}.get(kind, "") == what


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("node", ("node", "", "", "")),
        ("python", ("python3", "")),
        ("python", ("python3", "-m", "")),
        ("shell", ("bash", "")),
        ("node", ()),
        ("node", ("",)),
        ("node", ("node good.js",)),
        ("python", ("python3", "\N{REPLACEMENT CHARACTER}.py")),
        ("shell", ("sh", "-c", "echo \N{REPLACEMENT CHARACTER}")),
        ("nonsense", ("nonsense", "x")),
    ],
)
def test_what_cannot_be_the_truth_is_unresolved(name: str, argv: tuple[str, ...]):
    """Empty names, titles, unknown bytes and unknown families never name a script."""
    assert parse_argv(name, argv).kind == "unresolved"


LOADS = [
    ("python", "python3 -i a.py", ("-i",)),
    ("python", "python3 -X pycache_prefix=/x a.py", ("-X",)),
    ("python", "python3 -X dev -W ignore a.py", ()),
    ("python", "python3 -W error:::evil a.py", ()),
    ("python", "python3 -W ignore::evil.Category a.py", ("-W",)),
    (
        "node",
        "node -r x --import=y --loader z --env-file .env a.js",
        ("--require", "--import", "--experimental-loader", "--env-file"),
    ),
    ("node", "node --inspect-brk a.js", ("--inspect-brk",)),
    ("node", "node --title=x a.js", ()),
    ("shell", "bash --rcfile f -c text", ("--rcfile",)),
    ("shell", "bash -i a.sh", ("-i",)),
    ("shell", "bash -lc text", ()),
    ("perl", "perl -Mevil -I/x -d:Evil a.pl", ("-M", "-I", "-d")),
    ("ruby", "ruby -revil -I /x a.rb", ("-r", "-I")),
    ("java", "java -javaagent:/x.jar=y -Xbootclasspath/a:z -jar a.jar", ("-javaagent", "-Xbootclasspath/a")),
    ("java", "java --patch-module m=x -jar a.jar", ("--patch-module",)),
    ("bun", "bun --preload ./p.ts a.ts", ("--preload",)),
    ("deno", "deno run --import-map=m a.ts", ("--import-map",)),
    ("php", "php -d auto_prepend_file=/x a.php", ("-d",)),
    ("php", "php -d memory_limit=1 -c /x a.php", ("-c",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line", "expected"), LOADS, ids=[row[1] for row in LOADS])
def test_options_that_load_code(name: str, line: str, expected: tuple[str, ...]):
    """Preloads, agents, debuggers and start-up files are remembered in order."""
    assert tuple(option for option, _ in parse_argv(name, line.split(" ")).loads) == expected


def test_settings_of_the_search():
    """Options that decide where a module or class is looked up are kept."""
    assert parse_argv("python", ["python3", "-IPm", "mod"]).settings == (("-I", ""), ("-P", ""))
    assert parse_argv("java", ["java", "-cp", "a", "-classpath", "b", "Main"]).settings == (("-cp", "a"), ("-cp", "b"))
    assert parse_argv("perl", ["perl", "-S", "tool"]).settings == (("-S", ""),)


def test_the_shell_dialect_follows_the_executable():
    """Fish called by the name of bash is still fish: -f takes a value there, so nothing is believed."""
    argv = ["bash", "-f", "good.sh", "evil.fish"]
    assert parse_argv("shell", argv, "/usr/bin/bash").argument == "good.sh"
    assert parse_argv("shell", argv, "/usr/bin/fish").kind == "unresolved"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bash", "bash"), ("-rbash", "bash"), ("sh", "dash"), ("dash", "dash"), ("ash", "dash"), ("zsh-static", "zsh"),
     ("mksh", "ksh"), ("yash", "ksh"), ("fish", "fish"), ("toybox", "busybox")],
)  # fmt: skip
def test_dialect(name: str, expected: str):
    """Every shell has one table."""
    assert dialect(name) == expected


def test_every_option_of_the_installed_node_is_known_or_refused():
    """The tables agree with node's own: strings take values, booleans none, and the rest are refused modes."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    code = (
        "const b = require('internal/test/binding').internalBinding('options');"
        "const o = (b.getCLIOptionsInfo ?? b.getCLIOptions)().options;"
        "for (const [name, info] of o) console.log(name, info.type);"
    )
    listed = subprocess.run(
        [program, "--no-warnings", "--expose-internals", "-e", code], check=False, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("this node does not show its option table")
    rows = [line.split() for line in listed.stdout.splitlines() if line.startswith("--")]
    valued = {name.removeprefix("--") for name, kind in rows if int(kind) >= 3}
    single = {name.removeprefix("--") for name, kind in rows if int(kind) == 2}
    refused = {
        "eval", "print", "check", "test", "watch", "build-snapshot", "build-snapshot-config", "snapshot-blob", "run",
        "prof-process", "v8-options", "experimental-sea-config", "entry-url", "debug", "debug-brk",
    }  # fmt: skip
    unknown = (valued - node._VALUES) | (single - node._FLAGS) - refused
    assert not {name for name in unknown - refused if not name.startswith(("test-", "watch-", "experimental-test-"))}
    assert not valued & node._FLAGS
    assert not single & node._VALUES
