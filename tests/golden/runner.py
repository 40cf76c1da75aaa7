"""Runs case files through the adapters and counts what passed, failed and is not supported."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.golden import aggregations, billing_periods, charge_models, credits_wallets, dunning, invoice_totals, proration, taxes_currency
from tests.golden.compare import Unsupported, same
from tests.golden.declined import declined

Answer = Mapping[str, object]
ADAPTERS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "aggregations": aggregations.answer,
    "billing_periods": billing_periods.answer,
    "charge_models": charge_models.answer,
    "credits_wallets": credits_wallets.answer,
    "dunning": dunning.answer,
    "invoice_totals": invoice_totals.answer,
    "proration": proration.answer,
    "taxes_currency": taxes_currency.answer,
}
NOT_FIGURES = ("note", "_note", "_formula", "note_period_ends", "fee_types_note")


@dataclass
class Count:
    """Cases of one file by outcome."""

    passed: int = 0
    failed: int = 0
    unsupported: int = 0

    @property
    def share(self) -> float:
        """The part that is not supported, 0 to 1."""
        return self.unsupported / max(self.passed + self.failed + self.unsupported, 1)


@dataclass
class Result:
    """Outcome of a run; `failures` are (file, id, expected, got), `reasons` count (file, question, reason)."""

    by_file: dict[str, Count] = field(default_factory=dict)
    failures: list[tuple[str, str, object, object]] = field(default_factory=list)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def total(self, outcome: str) -> int:
        """Sum of one outcome over the files."""
        return sum(getattr(count, outcome) for count in self.by_file.values())

    def summary(self) -> dict[str, object]:
        """The counts as JSON values."""
        totals = {outcome: self.total(outcome) for outcome in ("passed", "failed", "unsupported")}
        return {**totals, "by_file": {name: vars(count) for name, count in self.by_file.items()}}


def run(where: Path) -> Result:
    """Run a file, or every `*.json` of a directory; a file or case that cannot be read is counted, never raised."""
    result = Result()
    for path in sorted(where.rglob("*.json")) if where.is_dir() else [where]:
        count = result.by_file.setdefault(path.name, Count())
        for case in _cases(path):
            _run_case(path, case, count, result)
    return result


def _cases(path: Path) -> list[Any]:
    try:
        data = json.loads(path.read_text())
    except ValueError:
        return [None]
    cases = data.get("cases", [None]) if isinstance(data, dict) else data
    return cases if isinstance(cases, list) else [None]


def _run_case(path: Path, case: Any, count: Count, result: Result) -> None:
    if not isinstance(case, dict) or not isinstance(case.get("input"), dict) or not isinstance(case.get("expected"), dict):
        count.unsupported += 1
        result.reasons[path.name, "?", "not a case with input and expected"] += 1
        return
    given = {key: value for key, value in case["input"].items() if value is not None}  # null means absent
    question = next((str(given[key]) for key in ("op", "model", "aggregation") if key in given), "?")
    expected = {key: value for key, value in case["expected"].items() if not key.endswith(NOT_FIGURES) and key not in NOT_FIGURES}
    try:
        if reason := declined(case):
            raise Unsupported(f"disagrees: {reason}")
        wrong = _wrong(str(case.get("area", path.stem)), path.stem, given, expected)
    except Unsupported as reason:
        count.unsupported += 1
        result.reasons[path.name, question, str(reason)] += 1
        return
    if not wrong:
        count.passed += 1
    elif "disagrees" in case:
        count.unsupported += 1
        result.reasons[path.name, question, f"disagrees: {case['disagrees']}"] += 1
    else:
        count.failed += 1
        result.failures.append((path.name, str(case.get("id")), {key: expected.get(key) for key in wrong}, wrong))


def _wrong(area: str, stem: str, given: Mapping[str, Any], expected: Mapping[str, object]) -> dict[str, object]:
    """What the product answers differently, by key. Raises `Unsupported` when right as far as it goes, but not all is answered."""
    adapter = ADAPTERS.get(area) or ADAPTERS.get(stem)
    if adapter is None:
        raise Unsupported(f"no adapter for {area}")
    try:
        answers = adapter(given)
    except Unsupported:
        raise
    except Exception as error:  # a case must never stop the run
        if _raised_here(error):
            raise Unsupported(f"cannot be read: {type(error).__name__}: {error}") from error
        return {"exception": f"{type(error).__name__}: {error}"}
    if "error" in expected and "error" in answers:
        return {}  # a refusal is a refusal; each system words its own
    wrong = {key: answers[key] for key, value in expected.items() if key in answers and not same(value, answers[key])}
    if not wrong:
        missing = sorted(key for key in expected if key not in answers)
        if "error" in answers and "error" not in expected:
            return {"error": answers["error"]}
        if "error" in expected:
            raise Unsupported("disagrees: answers what the source refuses")
        if missing or not expected:
            raise Unsupported(f"does not answer {', '.join(missing) or 'anything'}")
    return wrong


def _raised_here(error: Exception) -> bool:
    """Whether an adapter stumbled over a case's shape, rather than the product over its input: the last frame tells."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and Path(frame.tb_frame.f_code.co_filename).parent == Path(__file__).parent
