"""Bring a database to the newest schema, or write the next revision: `python -m ops.migrate [upgrade | revision MESSAGE | check]`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from alembic import command
from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parents[1] / "core" / "migrations"


def configuration(database_url: str, *, compare: bool = False) -> Config:
    """Alembic's configuration for `database_url`; there is no alembic.ini. `compare` loads the models, which only a comparison needs."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes.update(url=database_url, compare=compare)
    return config


def upgrade(database_url: str) -> None:
    """Migrate to the newest revision, in one transaction; processes that start together wait for each other."""
    command.upgrade(configuration(database_url), "head")


def main(argv: list[str] | None = None) -> int:
    """The command line; DATABASE_URL names the database."""
    parser = argparse.ArgumentParser(prog="python -m ops.migrate", description=__doc__)
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("upgrade", help="migrate to the newest revision (the default)")
    actions.add_parser("check", help="exit 1 when the models and the newest revision differ")
    revision = actions.add_parser("revision", help="write the next revision from what the models say and the database lacks")
    revision.add_argument("message")
    given = parser.parse_args(argv)
    config = configuration(os.environ["DATABASE_URL"], compare=given.action in {"revision", "check"})
    if given.action == "revision":
        command.revision(config, given.message, autogenerate=True)
    elif given.action == "check":
        command.check(config)
    else:
        command.upgrade(config, "head")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
