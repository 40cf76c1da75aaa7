"""Which schema this code was written for, read from the migrations' own text: to load Alembic for it would double the time of a start."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

VERSIONS = Path(__file__).resolve().parent / "migrations" / "versions"
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
