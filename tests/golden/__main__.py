"""`python -m tests.golden [DIR or FILE]`: failing cases, what is not supported and why, a table, and last a line of JSON.

Without a path: the cases that ship with the product. Exits 1 if a case failed, 2 if there is none.
"""

import json
import sys
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from tests.golden.runner import run

SHIPPED = Path(__file__).parent / "cases"


def main(arguments: list[str]) -> int:
    """Run the cases of one directory or file."""
    path = Path(arguments[0]) if any(arguments) else SHIPPED
    if len(arguments) > 1 or not path.exists():
        print("usage: python -m tests.golden [DIR or FILE]", file=sys.stderr)
        return 2
    result = run(path)
    if not result.by_file:
        print(f"There is no *.json in {path}.", file=sys.stderr)
        return 2
    for name, case_id, expected, got in result.failures:
        print(f"FAILED {name} {case_id}: expected {json.dumps(expected)}, got {json.dumps(got, default=_plain)}")
    for (name, question, reason), number in sorted(result.reasons.items()):
        print(f"unsupported {number:4} {name} {question}: {reason}")
    width = max(map(len, result.by_file))
    for name, count in result.by_file.items():
        print(f"{name:{width}} {count.passed:5} passed {count.failed:4} failed {count.unsupported:4} unsupported ({count.share:.1%})")
    print(json.dumps(result.summary()))
    return 1 if result.failures else 0


def _plain(value: object) -> str:
    if isinstance(value, Decimal | Fraction):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime) else repr(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
