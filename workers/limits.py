"""Actor of limits: look at the customers whose usage was just counted."""

from __future__ import annotations

import dramatiq

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.entitlements import watch
from core.entitlements.evaluate import evaluate


@dramatiq.actor(max_retries=3)
def evaluate_limits() -> None:
    """Tell thresholds, stop and let go. A customer claimed by a worker that dies is claimed again by the scheduler's sweep."""
    claimed = True
    while claimed:
        with transaction() as session:
            claimed = bool(touched := watch.claim(session, at=clock.now()))
        if claimed:
            with transaction() as session:
                at = clock.now()
                evaluate(session, touched, at=at, actor=SYSTEM, touched_from=touched)
                watch.done(session, list(touched), at=at)
