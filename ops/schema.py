"""Whether a database has the newest schema, read from the migrations' own text, since loading Alembic takes as long as all the rest."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

VERSIONS = Path(__file__).resolve().parents[1] / "core" / "migrations" / "versions"
REVISION = re.compile(r"^revision(?:: str)? = [\"'](\w+)[\"']", re.MULTILINE)
DOWN_REVISION = re.compile(r"^down_revision(?:: [^=]+)? = [\"'](\w+)[\"']", re.MULTILINE)


def newest() -> set[str]:
    """Revisions that no other one follows; one, unless two branches were written at once."""
    texts = [path.read_text(encoding="utf-8") for path in VERSIONS.glob("*.py")]
    followed = {name for text in texts for name in DOWN_REVISION.findall(text)}
    return {name for text in texts for name in REVISION.findall(text)} - followed


def is_newest(database_url: str) -> bool:
    """Whether the database stands at the newest revision; False for an empty one."""
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return False
        return {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")} == newest()
