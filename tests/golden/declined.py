"""Conventions of other systems that are not followed here although the cases do not mark them: rules over source and question, no ids."""

from collections.abc import Mapping
from typing import Any

RULES = [
    (
        "terminate_fee",
        "/upgrade_spec.rb",
        "an upgrade bills the old plan up to the day before, an end bills the last day too; the case does not say which of both it is",
    ),
]


def declined(case: Mapping[str, Any]) -> str | None:
    """Why a case is not asked, or None."""
    for op, source, reason in RULES:
        if case["input"].get("op") == op and source in str(case.get("source")):
            return reason
    return None
