"""`valueverse invoice replay NUMBER`: work an issued invoice out again from what is stored with it, and say what comes out otherwise."""

from __future__ import annotations

import argparse
import sys

from core.errors import BillingError
from core.invoicing import replay
from ops.context import unit_of_work


def main(argv: list[str]) -> int:
    """Exit status 0 when it is identical, 1 when a figure differs or there is no such invoice."""
    parser = argparse.ArgumentParser(prog="valueverse invoice", description=__doc__)
    parser.add_argument("act", choices=("replay",))
    parser.add_argument("number", help="the invoice's number, such as INV-2026-0001")
    given = parser.parse_args(argv)
    try:
        with unit_of_work() as session:
            invoice = replay.find(session, given.number)
            found = replay.replay(session, invoice.organization_id, invoice.id)
    except BillingError as error:
        print(error.message, file=sys.stderr)
        return 1
    for position, reason in found.unpriced:
        print(f"line {position} was not priced again: {reason}")
    for difference in found.differences:
        print(f"{difference.where}: issued {difference.issued}, replayed {difference.replayed}")
    outcome = "identical" if found.is_identical else f"{len(found.differences)} differences"
    print(f"{found.number}: {found.lines} lines, {outcome}")
    return 0 if found.is_identical else 1
