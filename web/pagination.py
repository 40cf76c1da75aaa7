"""Keyset paging: 50 rows, then a visible "Show 50 more" that carries the last row's key in the address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flask import request, url_for

PAGE_ROWS = 50
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The rows to show and, when there are more, the address of the next ones (same filters)."""

    rows: Sequence[T]
    more_href: str | None


def after() -> str | None:
    """The key of the last row already shown (`?after=`), None for the first page."""
    return request.args.get("after") or None


def paginate(rows: Sequence[T], key: Callable[[T], object], *, size: int = PAGE_ROWS) -> Page[T]:
    """A page of `rows`, which the query fetched with a limit of `size + 1`: the extra row only tells that more follow."""
    if len(rows) <= size:
        return Page(rows, None)
    shown = rows[:size]
    values = {**request.args.to_dict(flat=False), **(request.view_args or {}), "after": str(key(shown[-1]))}
    return Page(shown, url_for(str(request.endpoint), **values))
