"""Failure modes: which of the next requests go wrong, and how."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.provider.errors import invalid

PLAIN = ("charge_then_drop", "charge_then_500", "drop_before_charge", "500", "429", "requires_action", "processing")
MATCHERS = {"customer", "payment_method", "next", "every", "path"}


@dataclass(slots=True)
class Rule:
    """A mode, for the requests that fit `match`: all of them, the next `left`, or every `every`-th."""

    mode: str
    match: dict[str, Any]
    left: int | None
    seen: int = 0

    def fits(self, path: str, charging: bool, names: Mapping[str, str | None]) -> bool:
        """Whether it applies to a request; without `path` only requests that charge are meant."""
        wanted = self.match.get("path")
        if not (path.startswith(wanted) if wanted else charging):
            return False
        return all(names.get(name) == self.match[name] for name in ("customer", "payment_method") if name in self.match)


class Modes:
    """The rules in force, oldest first; the first that fits a request decides."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def add(self, match: Any, mode: Any) -> None:
        """Put a rule in force."""
        if not isinstance(match, dict) or not set(match) <= MATCHERS:
            raise invalid(f"match must have keys of {', '.join(sorted(MATCHERS))}")
        word, _, argument = str(mode).partition(":")
        if not (mode in PLAIN or (word == "decline" and argument) or (word == "hang" and argument.replace(".", "", 1).isdigit())):
            raise invalid(f"mode must be decline:CODE, hang:SECONDS or one of {', '.join(PLAIN)}")
        with self._lock:
            self._rules.append(Rule(str(mode), match, match.get("next")))

    def clear(self) -> None:
        """Everything works again."""
        with self._lock:
            self._rules.clear()

    def rules(self) -> list[dict[str, Any]]:
        """The rules in force."""
        with self._lock:
            return [{"mode": rule.mode, "match": rule.match, "left": rule.left} for rule in self._rules]

    def take(self, path: str, *, charging: bool, **names: str | None) -> str | None:
        """The mode for a request, counted as used."""
        with self._lock:
            for rule in self._rules:
                if not rule.fits(path, charging, names):
                    continue
                rule.seen += 1
                if rule.seen % int(rule.match.get("every", 1)):
                    continue
                if rule.left is not None:
                    rule.left -= 1
                    if rule.left <= 0:
                        self._rules.remove(rule)
                return rule.mode
        return None
