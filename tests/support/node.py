"""What JavaScript's ``JSON.parse`` sees: one node process that answers line by line."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any, Self

NODE = shutil.which("node")

_PROGRAM = """
require('readline').createInterface({input: process.stdin, crlfDelay: 0}).on('line', line => {
  let answer;
  try { answer = {value: JSON.parse(Buffer.from(line, 'base64').toString('utf8'))}; }
  catch (e) { answer = {error: String(e)}; }
  process.stdout.write(JSON.stringify(answer) + '\\n');
});
"""


class Node:
    """A running node. Use as a context manager."""

    def __enter__(self) -> Self:
        if NODE is None:
            raise RuntimeError("node is not installed")
        self._process = subprocess.Popen(
            [NODE, "-e", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def parse(self, data: bytes) -> Any:
        """The value that node sees in the bytes.

        Raises:
            ValueError: node refuses them.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(data).decode() + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]


def as_doubles(value: Any) -> Any:
    """A value as a language without integers sees it, so that two parsers can be compared."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value) + 0.0
    if isinstance(value, list):
        return [as_doubles(item) for item in value]
    return {key: as_doubles(item) for key, item in value.items()}
