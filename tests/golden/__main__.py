"""`python -m tests.golden DIR`: prints failing cases, what is not supported and why, and last a line of JSON. Exits 1 if a case failed."""

import json
import sys
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from tests.golden.runner import run


def main(arguments: list[str]) -> int:
    """Run the cases of one directory."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m tests.golden DIR", file=sys.stderr)
        return 2
    result = run(Path(arguments[0]))
    for name, case_id, expected, got in result.failures:
        print(f"FAILED {name} {case_id}: expected {json.dumps(expected)}, got {json.dumps(got, default=_plain)}")
    for (name, question, reason), number in sorted(result.reasons.items()):
        print(f"unsupported {number:4} {name} {question}: {reason}")
    print(json.dumps(result.summary()))
    return 1 if result.failures else 0


def _plain(value: object) -> str:
    if isinstance(value, Decimal | Fraction):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime) else repr(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
