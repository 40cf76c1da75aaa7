"""A worker that charges an invoice and is killed (-9) on the way.

`python -m tests.payments.dying_worker DATABASE_URL PROVIDER_URL INVOICE_ID WHERE`
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.orm import Session

from core import config
from core.config import Settings
from core.db import db, transaction
from core.payments import collect
from tests.payments.billing import bare_app

POINTS = ("before_charge", "after_charge", "before_commit")


def die(*_: object) -> None:
    """As the kernel's out-of-memory killer would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(database_url: str, provider_url: str, invoice_id: str, where: str) -> None:
    """The very steps of collect.collect, dying at `where`."""
    app = bare_app(database_url, Path("var"))
    config.use(Settings(environment="test", database_url=database_url, stripe_api_key="sk_test_fake", stripe_api_base=provider_url))
    with app.app_context():
        with transaction() as session:
            attempt = collect.begin(session, uuid.UUID(invoice_id), at=datetime.now(UTC))
        assert attempt is not None
        if where == "before_charge":
            die()
        outcome = collect.charge(attempt)
        if where == "after_charge":
            die()
        event.listen(Session, "before_commit", die)
        with transaction() as session:
            collect.record(session, attempt.id, outcome, at=datetime.now(UTC))
        db.session.remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
