"""The rules of the house that no linter knows: who commits, who asks the time, how big things may get."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "web", "api", "portal", "admin", "workers", "ops")
EDGES = ("web", "api", "portal", "admin", "workers", "ops")
MODULE_LINES_MAX = 300
FUNCTION_LINES_MAX = 70
TEMPLATE_LINES_MAX = 120
SCRIPT_LINES_MAX = 60

LONGER_MODULES: dict[str, str] = {}
LONGER_TEMPLATES: dict[str, str] = {}
LONGER_SCRIPTS: dict[str, str] = {}
VAGUE_NAMES = {"service.py", "services.py", "utils.py", "helpers.py", "misc.py", "common.py", "manager.py"}


def modules(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from (path for path in sorted((ROOT / room).rglob("*.py")) if "migrations/versions" not in path.as_posix())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call of a name or attribute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_only_the_database_module_commits() -> None:
    found = [
        f"{name(path)}:{line}: {call}()"
        for path in modules(*ROOMS)
        if name(path) != "core/db.py"
        for line, call in calls(path)
        if call.endswith((".commit", ".rollback"))
    ]
    assert found == []


def test_only_the_edges_ask_the_time() -> None:
    found = [
        f"{name(path)}:{line}: {call}()"
        for path in modules("core")
        if name(path) != "core/clock.py"
        for line, call in calls(path)
        if call in {"clock.now", "now", "datetime.now", "datetime.utcnow", "date.today", "datetime.today"}
    ]
    assert found == []


def test_no_sql_asks_the_time_either() -> None:
    """`now()` in SQL is the server's clock: an organization on a test clock does not live in it. A model's default is bookkeeping."""
    pattern = re.compile(r"func\.now\(|CURRENT_TIMESTAMP|statement_timestamp\(")
    asking = [path for path in modules("core", *EDGES) if path.name != "models.py" and pattern.search(path.read_text(encoding="utf-8"))]
    assert [name(path) for path in asking] == []


@pytest.mark.parametrize(
    ("paths", "most", "exceptions"),
    [
        (list(modules(*ROOMS)), MODULE_LINES_MAX, LONGER_MODULES),
        (sorted((ROOT / "templates").rglob("*.html")), TEMPLATE_LINES_MAX, LONGER_TEMPLATES),
        (sorted((ROOT / "static" / "js").glob("*.js")), SCRIPT_LINES_MAX, LONGER_SCRIPTS),
    ],
    ids=["modules", "templates", "scripts"],
)
def test_files_fit_in_a_few_screens(paths: list[Path], most: int, exceptions: dict[str, str]) -> None:
    too_long = {name(path): lines(path) for path in paths if lines(path) > most}
    assert {path: length for path, length in too_long.items() if path not in exceptions} == {}
    assert set(exceptions) <= set(too_long), "an exception that is no longer needed must go"


def test_functions_can_be_seen_whole() -> None:
    found = [
        f"{name(path)}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in modules(*ROOMS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert found == []


def test_file_names_say_what_is_computed() -> None:
    assert [name(path) for path in modules(*ROOMS, "tests") if path.name in VAGUE_NAMES] == []


def test_no_error_is_swallowed() -> None:
    """`except Exception: pass` hides what went wrong; a narrow exception may be ignored with contextlib.suppress."""
    found = [
        f"{name(path)}:{node.lineno}"
        for path in modules(*ROOMS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(statement, ast.Pass) for statement in node.body)
    ]
    assert found == []


def test_templates_carry_no_inline_style_or_script() -> None:
    handlers = "click|change|submit|load|input|key|mouse|pointer|focus|blur|error|toggle"
    script = r'<script(?![^>]*\b(?:src=|type="application/json"))'
    pattern = re.compile(rf"\sstyle=|{script}|\shx-on|\son(?:{handlers})[a-z]*=", re.IGNORECASE)
    pages = [path for path in sorted((ROOT / "templates").rglob("*.html")) if not {"emails", "documents"} & set(path.parts)]
    assert pages
    assert [name(path) for path in pages if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_import_rules_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_the_repository_speaks_of_the_product_alone() -> None:
    """No registry hosts, no paths of somebody's machine."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode().split("\0")
    paths = [ROOT / each for each in listed if each] or list(modules(*ROOMS))
    texts = [path for path in paths if path.suffix in {".py", ".md", ".txt", ".toml", ".html", ".css", ".js", ""} and path.is_file()]
    pattern = re.compile(rb"files\.pythonhosted\.org|pypi\.org/simple|registry\.npmjs|/home/[a-z]+/|/Users/[a-z]+/|/root/(?!\b)")
    own = Path(__file__)
    assert [name(path) for path in texts if path != own and "vendor" not in path.parts and pattern.search(path.read_bytes())] == []
