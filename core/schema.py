"""The schema this code was written for: its newest revision, and all the models that declare it.

The revision is read from the migrations' own text, since to load Alembic for it would double the time of a start.
"""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from pathlib import Path

CORE = Path(__file__).resolve().parent
VERSIONS = CORE / "migrations" / "versions"
REVISION = re.compile(r"^revision(?:: str)? = [\"'](\w+)[\"']", re.MULTILINE)
DOWN_REVISION = re.compile(r"^down_revision(?:: [^=]+)? = [\"'](\w+)[\"']", re.MULTILINE)


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """The migration that no other one follows; ValueError when two do not know of each other."""
    texts = [path.read_text(encoding="utf-8") for path in VERSIONS.glob("*.py")]
    followed = {name for text in texts for name in DOWN_REVISION.findall(text)}
    newest: str
    (newest,) = {name for text in texts for name in REVISION.findall(text)} - followed
    return newest


def load_models() -> None:
    """Import every module of the core that declares tables: a foreign key finds its target only once both are known."""
    for path in sorted([*CORE.glob("*.py"), *CORE.glob("*/*.py"), *CORE.glob("*/*/*.py")]):
        if "\n    __tablename__ = " in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(("core", *path.relative_to(CORE).with_suffix("").parts)))
