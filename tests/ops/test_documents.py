"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from core.config import SELLER_VARIABLES, VARIABLES, Settings
from ops import cli

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]*) \|", re.MULTILINE)


def test_the_table_of_settings_is_complete() -> None:
    documented = ROW.findall((ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
    known = {variable for variable, _ in VARIABLES.values()} | set(SELLER_VARIABLES.values()) | {"SELLER_ADDRESS"}
    assert {name for name, _ in documented} == known
    assert len(documented) == len(known)


def test_the_defaults_in_the_table_are_the_code_s() -> None:
    documented = dict(ROW.findall((ROOT / "docs" / "operations.md").read_text(encoding="utf-8")))
    settings = Settings()
    stated = {
        name: (documented[variable].strip("` "), str(getattr(settings, name)))
        for name, (variable, _) in VARIABLES.items()
        if documented[variable].startswith("`")
    }
    assert len(stated) > 15
    assert [(name, pair) for name, pair in stated.items() if pair[0] != pair[1]] == []


def test_every_link_between_documents_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"]
    links = [(page, target) for page in pages for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert len(links) > 10
    assert [f"{page.relative_to(ROOT)}: {target}" for page, target in links if not (page.parent / target).exists()] == []


def test_make_help_knows_every_target_and_each_calls_a_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = set(re.findall(r"\$\(VALUEVERSE\) ([a-z-]+)", makefile))
    assert called <= set(cli.COMMANDS)
    promised = {"run", "test", "lint", "verify", "trace", "golden", "bench", "help"}
    assert promised <= set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
