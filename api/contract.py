"""How an endpoint is declared.

    @endpoint("POST", "/billing/metrics", scope=Scope.BILLING_WRITE, status=201)
    def create_metric(call: Call, body: MetricIn) -> MetricOut: ...

The types of `body` and `query` and the return type are the contract: requests are read by them, answers written by them, and
the OpenAPI document is made of them. How a declared endpoint is carried out is in `execution`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from core.errors import FieldError, Invalid

T = TypeVar("T")
R = TypeVar("R")

JSON = "application/json"
PAGE_ROWS = 50
PAGE_ROWS_MAX = 100


class Input(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies and queries: a field that is not declared is refused."""


class Output(msgspec.Struct, kw_only=True):
    """Base of answers: exactly the declared fields are written."""


class Listing(Input):
    """Paging of every list: newest first, `limit` rows after the row whose id is `cursor`."""

    limit: int = PAGE_ROWS
    cursor: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_ROWS_MAX:
            raise Invalid("The page is too long.", errors=(FieldError("/limit", f"Give 1 to {PAGE_ROWS_MAX}."),))


class Page(Output, Generic[T]):
    """One page of a list; `next_cursor` continues it."""

    data: list[T]
    has_more: bool
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """An answer with a status other than the endpoint's usual one."""

    body: T
    status: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One declared route."""

    method: str
    path: str
    scope: str
    tag: str
    status: int
    stepwise: bool
    produces: str
    statuses: tuple[int, ...]
    secret: str | None
    often: bool
    view: Callable[..., Any]
    body: type[Any] | None
    query: type[Any] | None
    answer: Any

    @property
    def summary(self) -> str:
        """First sentence of the view's docstring."""
        return self._text.partition(". ")[0].rstrip(".")

    @property
    def description(self) -> str:
        """The rest of it."""
        return self._text.partition(". ")[2].strip()

    @property
    def _text(self) -> str:
        return " ".join(cleandoc(self.view.__doc__ or "").split())


ENDPOINTS: list[Endpoint] = []


def endpoint(
    method: str,
    path: str,
    *,
    scope: str,
    tag: str,
    status: int = 200,
    stepwise: bool = False,
    produces: str = JSON,
    statuses: Sequence[int] = (),
    secret: str | None = None,
    often: bool = False,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Declare a route. A `stepwise` one (a provider is called, a worker is waited for) opens its transactions itself.

    `statuses` are further answers with the same body (202 while something is still on its way); `secret` names a field of the
    answer that is not kept for a replay. What is asked `often`, before every request of a product, takes a key known for a moment.
    """

    def declare(view: Callable[..., R]) -> Callable[..., R]:
        hints = get_type_hints(view, include_extras=True)
        ENDPOINTS.append(
            Endpoint(
                method=method,
                path=path,
                scope=scope,
                tag=tag,
                status=status,
                stepwise=stepwise,
                produces=produces,
                statuses=tuple(statuses),
                secret=secret,
                often=often,
                view=view,
                body=hints.get("body"),
                query=hints.get("query"),
                answer=hints.get("return"),
            )
        )
        return view

    return declare


def page_of(rows: Sequence[R], limit: int, convert: Callable[[R], T], key: Callable[[R], object]) -> Page[T]:
    """A page of `rows`, which the query fetched with a limit of `limit + 1`: the extra row only tells that more follow."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(data=[convert(row) for row in shown], has_more=more, next_cursor=str(key(shown[-1])) if more else None)
