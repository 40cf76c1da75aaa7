"""What is attached to a subscription, and what a change of one add-on makes of it. Pure: every function returns new values."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from core.catalog.models import PlanVersion


@dataclass(frozen=True, slots=True)
class Attached:
    """An add-on or coupon beside the plan, from `start` up to `end` (None: open). `id` is the stored row's, None before it is stored."""

    version: PlanVersion
    quantity: Decimal
    start: datetime
    end: datetime | None
    id: uuid.UUID | None = None


def successors(attached: Sequence[Attached], own: Attached) -> list[Attached]:
    """What takes the place of `own` where it ends, and what follows that: the same add-on in another quantity."""
    chain: list[Attached] = []
    last = own
    while last.end is not None:
        following = next((item for item in attached if item.start == last.end and item.version.plan_id == own.version.plan_id), None)
        if following is None:
            break
        chain.append(following)
        last = following
    return chain


def held_from(
    attached: Sequence[Attached], *, own: Attached, version: PlanVersion, quantity: Decimal, at: datetime
) -> tuple[Attached, ...]:
    """From `at` on, `quantity` of the add-on `version` is held (0: none), in place of `own` and of what was planned to follow it.

    An end that was planned for later stays; one at or before `at` gives way.
    """
    chain = successors(attached, own)
    rest = tuple(item for item in attached if item is not own and item not in chain)
    end = chain[-1].end if chain else own.end
    if not quantity and not chain and end is not None and end <= at:
        return (*rest, own)  # it ends before as it is
    end = None if end is not None and end <= at else end
    if quantity == own.quantity and version.id == own.version.id:
        return (*rest, replace(own, end=end))
    before = (replace(own, end=at),) if own.start < at else ()
    after = (Attached(version, quantity, at, end),) if quantity else ()
    return (*rest, *before, *after)


def kept(attached: Sequence[Attached], own: Attached) -> tuple[Attached, ...]:
    """The planned end or other quantity of `own` is taken back: it goes on as it is."""
    chain = successors(attached, own)
    rest = tuple(item for item in attached if item is not own and item not in chain)
    return (*rest, replace(own, end=chain[-1].end if chain else None))
