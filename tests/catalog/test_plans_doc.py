"""The plans of the user documentation can be published as they stand."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog import publish
from core.catalog.conditions import KEYS
from tests.conftest import DEFAULT_NOW
from tests.factories import make_metric

TEXT = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()
PLANS: list[dict[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


def test_every_condition_of_a_price_is_documented() -> None:
    assert all(f"`{key}`" in TEXT for key in KEYS)


@pytest.mark.parametrize("document", PLANS, ids=[document["code"] for document in PLANS])
def test_the_plans_can_be_published(session: Session, document: dict[str, Any]) -> None:
    for code in ("api_calls", "storage"):
        make_metric(session, code=code).code = code
    session.flush()
    given = {"billing_period": "month", "base_price": "0", **document}
    version = publish.create_version(session, **given, actor=SYSTEM, at=DEFAULT_NOW)
    codes = [rule.code for rule in version.rules if rule.currency is None]
    wanted = [price.get("code") or price.get("metric") or price["licensed"] for price in document.get("prices", ())]
    assert codes == (["base"] if Decimal(given["base_price"]) else []) + wanted
