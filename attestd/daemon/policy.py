"""Loading what decides: class table, schema, layers. Lowest layer first; the first brings the templates of grants."""

from __future__ import annotations

from pathlib import Path

import msgspec

from attestd.appraisal.classes import ClassTable, parse_class_table
from attestd.decision.engine import Engine
from attestd.decision.layers import Layer
from attestd.errors import ConfigurationError


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One loaded generation."""

    table: ClassTable
    engine: Engine
    files: tuple[str, ...]
    """What it was loaded from, lowest layer first."""


def load_policy(shipped: Path, host: Path, host_id: str) -> Policy:
    """Load and validate everything. Raises PolicyInvalidError, ConfigurationError; then nothing has changed."""
    layers = [_vendor(shipped)]
    files = [str(shipped / "baseline.cedar")]
    for path in sorted(host.glob("*.cedar")) if host.is_dir() else ():
        layers.append(Layer(name=f"host.{path.stem}", text=_read(path), file=str(path)))
        files.append(str(path))
    return Policy(
        table=parse_class_table(_read(shipped / "classes.toml"), str(shipped / "classes.toml")),
        engine=Engine(_read(shipped / "attestd.cedarschema"), layers, host=host_id),
        files=tuple(files),
    )


def shipped_engine(shipped: Path, host_id: str) -> Engine:
    """One that decides by the shipped policy alone. Raises PolicyInvalidError, ConfigurationError."""
    return Engine(_read(shipped / "attestd.cedarschema"), [_vendor(shipped)], host=host_id)


def _vendor(shipped: Path) -> Layer:
    return Layer(name="vendor", text=_read(shipped / "baseline.cedar"), file=str(shipped / "baseline.cedar"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"cannot read {path}: {reason}", hint="reinstall attestd, or correct the file"
        ) from error
