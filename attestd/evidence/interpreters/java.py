"""The Java launcher. Source: src/java.base/share/native/libjli/java.c and ``java --help``, ``java -X``.

``-jar`` is a mode: the archive is the first word behind *all* options. A main class is a ``module`` with the class
path in ``settings``; a name that ends with ``.java`` is source-file mode. Argument files (``@file``), ``-m`` and a
class path set as a property are unresolved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attestd.evidence.interpreters.spec import NO_OPTIONS, Reader, ScriptSpec, UnknownOptionError, finish, names

_VALUES: Final = names(
    "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules --enable-native-access "
    "--limit-modules --add-exports --add-opens --add-reads --patch-module --source"
)
_FLAGS: Final = names(
    "-version --version -showversion --show-version -fullversion -? -h -help --help -X --help-extra -esa -dsa "
    "-enablesystemassertions -disablesystemassertions -ea -da -enableassertions -disableassertions -verbose "
    "--enable-preview --dry-run --validate-modules --list-modules --show-module-resolution -server -client "
    "-Xbatch -Xcomp -Xdebug -Xdiag -Xfuture -Xint -Xmixed -Xnoclassgc -Xrs -Xverify -Xprof -Xinternalversion "
    "-XshowSettings -zero -dcevm "
    "-d64 -d32 -Xnocatch"
)
_PREFIXES: Final = (
    "-ea:", "-da:", "-enableassertions:", "-disableassertions:", "-verbose:", "-splash:", "-D", "-XX:", "-Xlog",
    "-Xloggc:", "-Xmn", "-Xms", "-Xmx", "-Xss", "-Xshare:", "-XshowSettings:", "-Xcheck:", "-Xverify:", "-agentlib:",
    "-agentpath:", "-javaagent:", "-Xbootclasspath", "-Xrun", "-Xdock:", "--finalization=", "--illegal-access=",
    "--illegal-native-access=", "--sun-misc-unsafe-memory-access=",
)  # fmt: skip
_LOADING: Final = (
    "-agentlib:", "-agentpath:", "-javaagent:", "-Xbootclasspath", "-Xrun", "-XX:Flags=", "-XX:VMOptionsFile=",
    "-XX:OnError=", "-XX:OnOutOfMemoryError=", "-XX:SharedArchiveFile=", "-XX:AOTCache=", "-XX:CompileCommandFile=",
    "-XX:CompilerDirectivesFile=", "-Djava.system.class.loader=", "-Djava.library.path=", "-Djava.home=",
    "-Djava.security.manager=", "-Djava.security.properties=", "-Djdk.module.patch", "-Djava.ext.dirs=",
    "-Djava.endorsed.dirs=", "-Dsun.boot.library.path=", "-Dcom.sun.management.jmxremote",
)  # fmt: skip
_LOADING_VALUES: Final = names("--patch-module --upgrade-module-path -p --module-path")
_CLASS_PATH: Final = frozenset({"-cp", "-classpath", "--class-path"})


def parse(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    reader = Reader(words, short=NO_OPTIONS, long=NO_OPTIONS)
    modes: set[str] = set()
    while reader.rest() and reader.rest()[0].startswith(("-", "@")):
        word = reader.next_word("java")
        mode = _option(reader, word)
        if mode:
            modes.add(mode)
    rest = reader.rest()
    if not rest:
        return finish(reader, "unresolved", "java")
    if "source" in modes or (rest[0].endswith(".java") and not modes):
        return finish(reader, "script", rest[0])
    return finish(reader, "script" if "jar" in modes else "module", rest[0])


def _option(reader: Reader, word: str) -> str:
    """Read one option; the mode that it sets, or nothing."""
    if word == "-jar":
        return "jar"
    name, equals, value = word.partition("=")
    if name in _VALUES and (not equals or name.startswith("--")):
        if not equals:
            value = reader.next_word(word)
        if name in _CLASS_PATH:
            reader.settings.append(("-cp", value))
        if name in _LOADING_VALUES:
            reader.loads.append((name, value))
        return "source" if name == "--source" else ""
    if word.startswith("-Djava.class.path") or not (word in _FLAGS or word.startswith(_PREFIXES)):
        raise UnknownOptionError(word)
    if word.startswith(_LOADING):
        option, _, rest = word.partition("=" if word.startswith(("-D", "-XX")) else ":")
        reader.loads.append((option, rest))
    return ""
