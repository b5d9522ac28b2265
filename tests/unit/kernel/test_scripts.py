"""Real interpreters of every family installed here: the resolver finds the file they run, or says that it cannot."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from attestd.evidence.model import Script
from attestd.kernel.linux.files import FileReader
from attestd.kernel.linux.origins import Origins
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.scripts import resolve, started_ns
from tests.support.interpreted import SAY, aged, interpreter, of, resolved, running, written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FILES = [
    ("node", "node"),
    ("python3", "python"),
    ("bash", "shell"),
    ("dash", "shell"),
    ("perl", "perl"),
    ("ruby", "ruby"),
]


def python() -> str:
    """This very interpreter, as it was called."""
    return sys.executable


def names_file(script: Script, path: Path) -> bool:
    """Whether the script is that file, by its digest and its label."""
    return (
        script.file is not None
        and script.file.path == str(path.resolve())
        and script.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    )


class TestFiles:
    @pytest.mark.parametrize(("program", "family"), FILES)
    def test_a_script_named_by_its_path(self, tmp_path: Path, program: str, family: str):
        """An absolute script name is found, hashed and of the right family."""
        path = aged(written(tmp_path / "prog", SAY[family]))
        script = of([interpreter(program), path, "--flag"])
        assert (script.kind, script.interpreter, script.name) == ("script", family, str(path))
        assert names_file(script, path)
        assert not script.younger_than_process

    @pytest.mark.parametrize(("program", "family"), FILES)
    def test_a_shebang(self, tmp_path: Path, program: str, family: str):
        """The kernel's own argv of a #! line names the script."""
        path = written(tmp_path / "prog", f"#!{interpreter(program)}\n{SAY[family]}")
        assert names_file(of([path]), path)

    @pytest.mark.parametrize(("program", "family"), FILES)
    def test_a_shebang_through_env(self, tmp_path: Path, program: str, family: str):
        """After #!/usr/bin/env the relative name is taken from the working directory."""
        interpreter(program)
        path = written(tmp_path / "prog", f"#!/usr/bin/env {program}\n{SAY[family]}")
        script = of(["./prog"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
        assert names_file(script, path)

    @pytest.mark.parametrize(("program", "family"), FILES)
    def test_a_symbolic_link_is_followed(self, tmp_path: Path, program: str, family: str):
        """The label is the file that a link such as npm's .bin/tool leads to."""
        path = written(tmp_path / "lib" / "cli.js", SAY[family])
        link = tmp_path / "node_modules" / ".bin" / "tool"
        link.parent.mkdir(parents=True)
        link.symlink_to("../../lib/cli.js")
        script = of([interpreter(program), link])
        assert names_file(script, path)
        assert script.name == str(link)

    def test_arguments_of_the_script_are_not_read_as_options(self, tmp_path: Path):
        """What stands behind the script belongs to the script."""
        path = written(tmp_path / "a.py", SAY["python"])
        assert names_file(of([python(), "-u", path, "-c", "evil"]), path)


class TestNode:
    def test_endings_and_directories(self, tmp_path: Path):
        """Node's own rules name the main module: ending, index, and the main of package.json."""
        node = interpreter("node")
        plain = written(tmp_path / "server.js", SAY["node"])
        assert names_file(of([node, "server"], cwd=tmp_path), plain)
        index = written(tmp_path / "app" / "index.js", SAY["node"])
        assert names_file(of([node, tmp_path / "app"]), index)
        main = written(tmp_path / "app" / "dist" / "cli.js", SAY["node"])
        written(tmp_path / "app" / "package.json", '{"main": "./dist/cli"}')
        assert names_file(of([node, "./app"], cwd=tmp_path), main)

    def test_a_rewritten_title_is_unresolved(self, tmp_path: Path):
        """A process title says nothing about the script."""
        for title in ("innocent", "node /usr/lib/node_modules/npm/bin/npm-cli.js", "node"):
            path = written(tmp_path / "t.js", f"process.title = {title!r};\n" + SAY["node"])
            script = of([interpreter("node"), path])
            assert script.kind in ("unresolved", "stdin"), (title, script)
            assert script.sha256 is None

    def test_inline_code(self):
        """-e and -p are hashed as text."""
        text = SAY["node"]
        for words in (["-e", text], ["-pe", text], [f"--eval={text}"], ["-p", text]):
            script = of([interpreter("node"), *words])
            assert (script.kind, script.text) == ("inline", text)
            assert script.sha256 == hashlib.sha256(text.encode()).hexdigest()


class TestPython:
    def test_inline_and_stdin(self):
        """-c is inline; without a script on a pipe Python runs its standard input."""
        script = of([python(), "-c", SAY["python"]])
        assert (script.kind, script.text) == ("inline", SAY["python"])
        with subprocess.Popen([python()], stdin=subprocess.PIPE) as process:
            found = resolved(process.pid)
            process.kill()
        assert found is not None
        assert found.kind == "stdin"

    def test_a_terminal_without_a_script_is_none(self):
        """An interactive interpreter was given no code."""
        leader, follower = pty.openpty()
        with subprocess.Popen([interpreter("bash")], stdin=follower, stdout=follower, stderr=follower) as process:
            found = resolved(process.pid)
            process.kill()
        os.close(leader)
        os.close(follower)
        assert found is not None
        assert found.kind == "none"

    def test_directory_and_zip(self, tmp_path: Path):
        """A directory runs its __main__.py, a zip file is itself the program."""
        main = written(tmp_path / "app" / "__main__.py", SAY["python"])
        assert names_file(of([python(), tmp_path / "app"]), main)
        archive = tmp_path / "app.pyz"
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("__main__.py", SAY["python"])
        assert names_file(of([python(), archive]), archive)

    def test_a_module_of_the_working_directory(self, tmp_path: Path):
        """-m looks into the working directory first, and into packages for __main__."""
        plain = written(tmp_path / "tool.py", SAY["python"])
        script = of([python(), "-m", "tool"], cwd=tmp_path)
        assert (script.kind, script.name) == ("module", "tool")
        assert names_file(script, plain)
        written(tmp_path / "pack" / "__init__.py", "")
        main = written(tmp_path / "pack" / "__main__.py", SAY["python"])
        inner = written(tmp_path / "pack" / "inner.py", SAY["python"])
        assert names_file(of([python(), "-m", "pack"], cwd=tmp_path), main)
        assert names_file(of([python(), "-um", "pack.inner"], cwd=tmp_path), inner)

    def test_a_module_of_pythonpath(self, tmp_path: Path):
        """PYTHONPATH is searched as Python does; -P leaves the working directory out."""
        written(tmp_path / "here" / "tool.py", SAY["python"])
        there = written(tmp_path / "there" / "tool.py", SAY["python"])
        env = {"PYTHONPATH": str(there.parent)}
        assert names_file(of([python(), "-P", "-m", "tool"], cwd=tmp_path / "here", env=env), there)

    def test_a_module_of_a_virtual_environment(self, tmp_path: Path):
        """The environment follows from argv[0], although the executable lies elsewhere."""
        environment = tmp_path / "venv"
        subprocess.run([interpreter("python3"), "-m", "venv", "--without-pip", environment], check=True)
        (site,) = environment.glob("lib/python3.*/site-packages")
        module = written(site / "tool.py", SAY["python"])
        script = of([environment / "bin" / "python", "-I", "-m", "tool"])
        assert names_file(script, module)
        assert names_file(of(["python", "-m", "tool"], env={"PATH": f"{environment}/bin"}), module)
        elsewhere = written(tmp_path / "elsewhere" / "tool.py", SAY["python"])
        written(site / "more.pth", f"{elsewhere.parent}\n")
        (site / "tool.py").unlink()
        assert names_file(of([environment / "bin" / "python", "-I", "-m", "tool"]), elsewhere)

    def test_a_module_of_the_standard_library(self):
        """The standard library is found from the executable."""
        program = "import sys; print('ready', flush=True); sys.stdin.read()"
        with running([interpreter("python3"), "-c", program]) as process:
            script = resolved(process.pid, argv=(interpreter("python3"), "-m", "http.server"))
        assert script is not None
        assert script.file is not None
        assert script.file.path.endswith("/http/server.py")

    @pytest.mark.parametrize("module", ["site", "nothing_of_this_name", "a..b", "namespace.thing", "_socket"])
    def test_uncertain_modules_are_unresolved(self, tmp_path: Path, module: str):
        """Frozen, missing, malformed, namespace and extension modules are not guessed."""
        written(tmp_path / "namespace" / "thing.py", SAY["python"])
        with running([python(), "-c", SAY["python"]], cwd=tmp_path) as process:
            script = resolved(process.pid, argv=(python(), "-m", module))
        assert script is not None
        assert (script.kind, script.sha256) == ("unresolved", None)

    def test_a_module_needs_a_believable_first_word(self, tmp_path: Path):
        """argv[0] must lead to the running image, for the search path hangs on it."""
        written(tmp_path / "tool.py", SAY["python"])
        with running([python(), "-m", "tool"], cwd=tmp_path) as process:
            script = resolved(process.pid, argv=("/nonexistent/bin/python3", "-m", "tool"))
        assert script is not None
        assert script.kind == "unresolved"


class TestJava:
    def test_source_jar_and_class(self, tmp_path: Path):
        """Source-file mode, an archive and a class of the class path are found."""
        java, javac, jar = interpreter("java"), interpreter("javac"), interpreter("jar")
        source = written(tmp_path / "Main.java", SAY["java"])
        assert names_file(of([java, source]), source)
        subprocess.run([javac, "-d", tmp_path / "classes", source], check=True)
        script = of([java, "-Xmx64m", "-cp", "nowhere:classes", "Main"], cwd=tmp_path)
        assert (script.kind, script.name) == ("module", "Main")
        assert names_file(script, tmp_path / "classes" / "Main.class")
        subprocess.run([jar, "cfe", "app.jar", "Main", "-C", "classes", "."], cwd=tmp_path, check=True)
        assert names_file(of([java, "-jar", "-Xmx64m", "app.jar"], cwd=tmp_path), tmp_path / "app.jar")
        assert names_file(of([java, "-cp", "app.jar", "Main"], cwd=tmp_path), tmp_path / "app.jar")
        env = {"JDK_JAVA_OPTIONS": "-Xmx64m"}
        assert of([java, "-cp", "app.jar", "Main"], cwd=tmp_path, env=env).kind == "unresolved"


class TestShell:
    @pytest.mark.parametrize("shell", ["bash", "dash"])
    def test_inline_and_stdin(self, shell: str):
        """-c is the first word behind all options; -s is standard input."""
        script = of([interpreter(shell), "-ec", SAY["shell"], "name"])
        assert (script.kind, script.text) == ("inline", SAY["shell"])
        with subprocess.Popen([interpreter(shell), "-s", "x"], stdin=subprocess.PIPE) as process:
            found = resolved(process.pid)
            process.kill()
        assert found is not None
        assert found.kind == "stdin"

    def test_a_name_found_on_path_is_unresolved(self, tmp_path: Path):
        """Bash searches PATH for a bare name; the resolver does not. In the working directory it counts."""
        path = written(tmp_path / "bin" / "tool", SAY["shell"])
        env = {"PATH": f"{path.parent}:/usr/bin"}
        assert of([interpreter("bash"), "tool"], cwd=tmp_path, env=env).kind == "unresolved"
        assert names_file(of([interpreter("bash"), "tool"], cwd=path.parent, env=env), path)

    @pytest.mark.parametrize("shell", ["bash", "dash"])
    def test_a_replaced_script_is_unresolved(self, tmp_path: Path, shell: str):
        """The shell still reads the old file: the one at the path is another."""
        path = written(tmp_path / "a.sh", SAY["shell"])
        with running([interpreter(shell), path]) as process:
            written(tmp_path / "b.sh", SAY["shell"]).replace(path)
            script = resolved(process.pid)
        assert script is not None
        assert script.kind == "unresolved"

    def test_a_planted_descriptor_is_not_believed(self, tmp_path: Path):
        """A script that opens a better one at bash's own number does not become it."""
        good = written(tmp_path / "good.sh", SAY["shell"])
        evil = written(tmp_path / "evil.sh", f"exec 255<{good}; {SAY['shell']}")
        script = of([interpreter("bash"), evil])
        assert script.sha256 in (None, hashlib.sha256(evil.read_bytes()).hexdigest())

    @pytest.mark.parametrize("shell", ["bash", "dash"])
    def test_a_shell_that_left_its_directory(self, tmp_path: Path, shell: str):
        """The open descriptor finds a relative script after cd."""
        path = written(tmp_path / "prog", f"cd /; {SAY['shell']}")
        assert names_file(of([interpreter(shell), "./prog"], cwd=tmp_path), path)


class TestDoubt:
    def test_exec_with_another_first_word_is_unresolved(self, tmp_path: Path):
        """Exec -a makes the command line unbelievable."""
        path = written(tmp_path / "a.py", SAY["python"])
        with running(["fake", path], executable=os.path.realpath(python())) as process:
            script = resolved(process.pid)
        assert script is not None
        assert (script.kind, script.sha256) == ("unresolved", None)

    @pytest.mark.parametrize(("program", "family"), [("node", "node"), ("python3", "python")])
    def test_a_script_replaced_while_running_is_younger(self, tmp_path: Path, program: str, family: str):
        """The file at the path came after the process: it may not be what was loaded."""
        path = aged(written(tmp_path / "prog", SAY[family]))
        with running([interpreter(program), path]) as process:
            before = resolved(process.pid)
            written(tmp_path / "new", SAY[family] + "\n\n").replace(path)
            after = resolved(process.pid)
        assert before is not None
        assert after is not None
        assert (before.younger_than_process, after.younger_than_process) == (False, True)

    def test_a_relative_name_after_chdir(self, tmp_path: Path):
        """Without the exec-time directory a relative name that leads nowhere now is unresolved."""
        written(tmp_path / "prog", "import os; os.chdir('/')\n" + SAY["python"])
        assert of([python(), "prog"], cwd=tmp_path).kind == "unresolved"

    def test_an_unknown_option_is_unresolved(self, tmp_path: Path):
        """The resolver never guesses which word is the script."""
        path = written(tmp_path / "a.js", SAY["node"])
        with running([interpreter("node"), path]) as process:
            script = resolved(process.pid, argv=("node", "--of-the-future", str(path)))
        assert script is not None
        assert script.kind == "unresolved"

    @pytest.mark.parametrize("name", ["/dev/fd/0", "/proc/self/comm", "/proc/self/fd/0", "/dev/zero", "/", "x\0y"])
    def test_our_own_proc_and_devices_are_not_scripts(self, name: str):
        """/proc/self would be the daemon's own, and a device is never opened."""
        with running([interpreter("dash"), "-c", SAY["shell"]]) as process:
            script = resolved(process.pid, argv=("dash", name))
        assert script is not None
        assert (script.kind, script.sha256) == ("unresolved", None)

    def test_a_fifo_does_not_block(self, tmp_path: Path):
        """A FIFO in the place of a script is refused without waiting for a writer."""
        os.mkfifo(tmp_path / "pipe")
        with running([python(), "-c", SAY["python"]]) as process:
            script = resolved(process.pid, argv=("python3", str(tmp_path / "pipe")))
        assert script is not None
        assert script.kind == "unresolved"

    def test_no_interpreter_has_no_script(self):
        """A plain program has no script."""
        with subprocess.Popen(["/usr/bin/sleep", "60"]) as process:
            found = resolved(process.pid)
            process.kill()
        assert found is None

    def test_a_dead_process_says_so(self):
        """Reading a process that has gone is ESRCH, not an unresolved script."""
        with subprocess.Popen([interpreter("dash"), "-c", SAY["shell"]], stdin=subprocess.PIPE) as process:
            held = Process.open(process.pid)
            process.kill()
        with held, pytest.raises(ProcessLookupError):
            resolve(held, FileReader(), Origins(), exe_path="/usr/bin/dash", argv=("dash", "/bin/x"), uid=0, gids=())


def test_the_start_of_a_process_is_now():
    """The start time agrees with the clock to a tick."""
    before = time.time_ns()
    with running([interpreter("dash"), "-c", SAY["shell"]]) as process:
        after = time.time_ns()
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    started = started_ns(int(fields[19]))
    assert before - 20_000_000 <= started <= after
