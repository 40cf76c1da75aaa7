"""Every model of the vocabulary through the whole product: published over the API, rated from usage, on the invoice and its pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.analytics import spend
from core.audit import SYSTEM
from core.catalog import queries as catalog
from core.identity.models import Organization
from core.invoicing import draft, preview, whatif
from core.invoicing.models import Invoice, InvoiceLine
from core.metering.models import Metric
from core.money import round_half_up, to_decimal
from core.pricing import replay
from core.pricing.models import name_of, parse
from core.pricing.usage import ByMetric, Changes, Events, Grouped, Several, Usage
from core.subscriptions.models import Subscription
from tests.api.conftest import Api, organization_body, plan_body
from tests.conftest import Clock
from tests.invoicing import books
from tests.people import make_member, sign_in
from tests.pricing.test_charge import HOURS, MATRIX, UNIT
from tests.pricing.vocabulary import Told, told
from tests.usage import Used, record

D = Decimal
ZONE = ZoneInfo("Europe/Berlin")
START, END = datetime(2026, 6, 1, tzinfo=ZONE), datetime(2026, 7, 1, tzinfo=ZONE)
OF_A_KIND = 2
PAGES = ("", "usage", "plan", "plan/compare")


@dataclass(frozen=True)
class Priced:
    """One price of the plan: the metrics it reads with their usage, and the amount it must come to."""

    code: str
    price: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    used: dict[str, list[Used]]
    amount: str


def at(day: int, hour: int = 12, minute: int = 0, second: int = 0) -> datetime:
    """A local moment of the period."""
    return datetime(2026, 6, day, hour, minute, second, tzinfo=ZONE).astimezone(UTC)


def sample() -> Iterator[Priced]:
    """A few golden cases of each kind, and our own of the kinds that they do not have."""
    kinds: dict[tuple[str, ...], int] = {}
    for case in told():
        kind = (case.price["model"], type(case.usage).__name__, *sorted(case.price.keys() & {"bucket", "minimum_amount", "maximum_amount"}))
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= OF_A_KIND:
            yield golden(case)
    yield own("hours", HOURS, "4.60", [used(1, 8, 10), used(1, 7, 5), used(6, 23, 4), used(7, 5, 2)])
    places = [("large", "eu", 2), ("large", "us", 3), ("small", "eu", 11), ("huge", "eu", 4)]
    dimensions = {"group_by": ["region", "model"]}
    in_places = [(at(3), D(n), {"model": size, "region": region}) for size, region, n in places]
    yield own("matrix", MATRIX, "16.00", in_places, **dimensions)
    yield own("by-size", {**MATRIX, "dimensions": ["model"], "prices": MATRIX["prices"][1:]}, "14.00", in_places, **dimensions)
    yield own("peaks", {**UNIT, "bucket": "day"}, "1.20", [used(1, 8, 3), used(1, 9, 7), used(2, 8, 5)], aggregation="max")
    costs = [(at(4), D(3), {"cost": "1.25"}), (at(5), D(3), {"cost": "2.50"})]
    yield own("carried", {"model": "dynamic", "amount_property": "cost", "multiplier": "1.1"}, "4.13", costs)
    stairs = {"model": "stairstep", "tiers": [{"up_to": "10", "flat_fee": "50"}, {"up_to": None, "flat_fee": "200"}]}
    yield own("stairs", stairs, "200.00", [used(9, 9, 11)])
    yield own("flat", {"model": "flat", "flat_price": "12.00"}, "12.00", [])


def used(day: int, hour: int, quantity: int) -> Used:
    """Usage at a full local hour."""
    return at(day, hour), D(quantity), {}


def own(code: str, price: dict[str, Any], amount: str, events: list[Used], **metric: Any) -> Priced:
    return Priced(code, price, {code: {"aggregation": "sum", **metric}}, {code: events}, amount)


def golden(case: Told) -> Priced:
    price, amounts = dict(case.price), case.expected
    minor = round_half_up(D(amounts.get("amount_rounded", amounts.get("amount"))), "EUR")
    events: dict[str, list[Used]] = {case.id: list(happened(case.usage))}
    metric: dict[str, Any] = {"aggregation": "sum"}
    if price["model"] == "matrix":
        metric["group_by"] = ["group"]
    if isinstance(case.usage, Changes):
        metric |= {"property": "seats", "recurring": True}
    if price["model"] == "capacity" and isinstance(case.usage, ByMetric):
        del price["metrics"]
        price["capacity_tiers"] = [
            {**tier, "limits": {f"{case.id}.{name}": limit for name, limit in tier["limits"].items()}} for tier in price["capacity_tiers"]
        ]
        events = {f"{case.id}.{name}": [(at(5), quantity, {})] for name, quantity in case.usage.quantities.items()}
        events |= {name: [] for name in price["capacity_tiers"][0]["limits"] if name not in events}
    if isinstance(case.usage, Several):
        events = {f"{case.id}.{n}": list(happened(part)) for n, part in enumerate(case.usage.parts)}
        price["parts"] = [{**part, "metric": f"{case.id}.{n}"} for n, part in enumerate(price["parts"])]
    return Priced(case.id, price, dict.fromkeys(events, metric), events, str(to_decimal(minor, "EUR")))


def happened(usage: Usage) -> Iterator[Used]:
    """Events that make this usage."""
    match usage:
        case Decimal():
            yield from ((at(10), usage, {}) for _ in range(bool(usage)))
        case Events():
            yield from ((at(10) + timedelta(minutes=n), amount, {}) for n, amount in enumerate(usage.amounts))
        case Grouped():
            yield from ((at(2 + n), quantity, {"group": key[0]}) for n, (key, quantity) in enumerate(usage.quantities.items()))
        case Changes():
            for change in usage.changes:
                left = change.prorated_units / change.units
                yield END.astimezone(UTC) - (END - START) * float(left), D(1), {"seats": str(change.units)}


SAMPLE = list(sample())


@dataclass
class Shop:
    """A customer of a plan with every price."""

    organization: Organization
    subscription: Subscription
    metrics: dict[str, Metric]


def open_shop(api: Api, session: Session, clock: Clock, wanted: Sequence[Priced]) -> Shop:
    """The plan published, a customer of it from 1 June, the usage recorded."""
    clock.at(START)
    customer = api.made("/billing/organizations", organization_body(tax_rate_percent="0"))
    for priced in wanted:
        for code, metric in priced.metrics.items():
            api.made("/billing/metrics", {"code": code, "name": code, **metric})
    prices = [{"metric": next(iter(priced.metrics)), "code": priced.code, **priced.price} for priced in wanted]
    api.made("/billing/plans", plan_body("every-price", base_price="0", proration="days", prices=prices))
    given = {"organization_id": customer["id"], "plan": "every-price", "billing_anchor": "calendar"}
    started = api.made("/billing/subscriptions", given)
    metrics = {metric.code: metric for metric in session.scalars(select(Metric))}
    shop = Shop(session.get_one(Organization, customer["id"]), session.get_one(Subscription, started["id"]), metrics)
    for priced in wanted:
        for code, events in priced.used.items():
            record(session, shop.organization, metrics[code], events)
    return shop


def amounts(lines: Any) -> dict[str, str]:
    return {line.code: str(to_decimal(line.amount_minor, "EUR")) for line in lines}


def lines_of(session: Session, invoice: Invoice) -> list[InvoiceLine]:
    return list(session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id).order_by(InvoiceLine.position)))


def test_every_price_bills_what_it_says(api: Api, session: Session, clock: Clock, client: FlaskClient) -> None:
    shop = open_shop(api, session, clock, SAMPLE)
    expected = {priced.code: priced.amount for priced in SAMPLE}
    before = END - timedelta(microseconds=1)
    assert amounts(preview.so_far(session, shop.organization.id, shop.subscription.id, as_of=before).lines) == expected

    clock.at(END)
    invoice = books.issued(session, shop.subscription, END)
    lines = lines_of(session, invoice)
    assert amounts(lines) == expected
    for line in lines:
        [part] = line.detail["parts"]
        assert abs(sum(D(step["amount"]) for step in part["steps"]) - D(line.detail["exact"])) < D("1e-9"), line.code

        again = replay.again(line.detail, "EUR")
        assert again is not None
        assert again.minor == line.amount_minor, line.code

    plan = catalog.newest_version(session, "every-price")
    compared = whatif.compare(session, shop.organization.id, shop.subscription.id, versions=[plan], as_of=END)
    assert compared.own.minor == compared.plans[0].minor == (invoice.subtotal_minor,)

    sign_in(client, session, make_member(session, shop.organization), shop.organization)
    page = client.get(f"/portal/invoices/{invoice.invoice_number}?tiers=all").text
    for words in ("large · eu", "peak", "Up to the minimum of", "% of the amount", "The smallest size that holds it all"):
        assert words in page
    assert {path: client.get(f"/portal/{path}").status_code for path in PAGES} == dict.fromkeys(PAGES, 200)
    seen: set[str] = set()
    for line in lines:
        model = name_of(parse(line.detail["model"]))
        if model not in seen:
            answer = client.get(f"/portal/invoices/{invoice.invoice_number}/lines/{line.id}.csv")
            assert answer.status_code == 200, model
            days = [D(row.split(",")[3]) for row in answer.text.splitlines()[1:]]
            assert sum(days) == to_decimal(line.amount_minor, "EUR"), line.code
            assert client.get(f"/portal/invoices/{invoice.invoice_number}/lines/{line.id}").status_code == 200
        seen.add(model)
    assert len(seen) >= len({name_of(parse(priced.price)) for priced in SAMPLE})


def test_late_usage_is_rated_again_and_then_adjusted(api: Api, session: Session, clock: Clock) -> None:
    late = {"hours": used(1, 9, 10), "matrix": (at(3), D(1), {"model": "large", "region": "eu"}), "peaks": used(2, 20, 9)}
    shop = open_shop(api, session, clock, [priced for priced in SAMPLE if priced.code in late])
    foreseen = spend.forecast(session, shop.organization.id, shop.subscription.id, as_of=at(20))
    assert foreseen is not None
    assert foreseen.expected_minor >= 460 + 1600 + 120

    clock.at(END)
    drafted = draft.bill(session, shop.subscription.id, as_of=END, actor=SYSTEM)
    assert drafted is not None
    for code, event in late.items():
        record(session, shop.organization, shop.metrics[code], [event])
    draft.refresh(session, drafted.id, as_of=END, actor=SYSTEM)
    assert amounts(lines_of(session, drafted)) == {"hours": "7.60", "matrix": "19.00", "peaks": "1.60"}
    books.issued(session, shop.subscription, END)

    for code, event in late.items():
        record(session, shop.organization, shop.metrics[code], [event])
    adjusted = lines_of(session, books.issued(session, shop.subscription, END + timedelta(days=2)))
    assert {line.kind for line in adjusted} == {"adjustment"}
    assert amounts(adjusted) == {"hours": "3.00", "matrix": "3.00"}  # a day's peak does not rise by as much usage again


def test_a_part_of_a_month_has_its_part_of_minimum_and_included_units(api: Api, session: Session, clock: Clock) -> None:
    clock.at(datetime(2026, 6, 16, tzinfo=ZONE))
    customer = api.made("/billing/organizations", organization_body(tax_rate_percent="0"))
    api.made("/billing/metrics", {"code": "calls", "name": "Calls", "aggregation": "sum"})
    included = {**UNIT, "metric": "calls", "usage_discount": "100"}
    prices = [{**included, "code": "part", "minimum_amount": "9"}, {**included, "code": "whole", "minimum_amount": "9", "prorate": False}]
    prices += [{**included, "code": "used"}]
    api.made("/billing/plans", plan_body("partly", base_price="0", proration="days", prices=prices))
    started = api.made("/billing/subscriptions", {"organization_id": customer["id"], "plan": "partly", "billing_anchor": "calendar"})
    calls = session.scalars(select(Metric).where(Metric.code == "calls")).one()
    record(session, session.get_one(Organization, customer["id"]), calls, [used(20, 9, 70)])
    invoice = books.issued(session, session.get_one(Subscription, started["id"]), clock.at(END))
    assert amounts(lines_of(session, invoice)) == {"part": "4.50", "whole": "9.00", "used": "2.00"}


def test_a_wrong_price_is_told_where(api: Api) -> None:
    for code, aggregation in (("calls", "sum"), ("load", "max")):
        api.made("/billing/metrics", {"code": code, "name": code, "aggregation": aggregation, "group_by": ["region", "tier"]})
    tiers = [{"up_to": "10", "unit_price": "1"}, {"up_to": "5", "unit_price": "1"}, {"up_to": None, "unit_price": "1"}]
    matrix = {"model": "matrix", "default": None, "prices": []}
    prices = [
        {"metric": "calls", **UNIT},
        {"metric": "calls", "code": "b", "model": "graduated", "tiers": tiers},
        {"code": "c", **HOURS},
        {"metric": "load", "code": "d", **HOURS},
        {"metric": "calls", "code": "e", "dimensions": ["regoin"], **matrix},
        {"metric": "load", "code": "f", "dimensions": ["region"], **matrix},
        {"metric": "calls", "code": "g", "model": "sum", "parts": [UNIT, {**UNIT, "metric": "cals"}]},
        {"metric": "calls", "code": "h", "model": "capacity", "capacity_tiers": [{"price": "1", "limits": {"disks": None}}]},
        {"metric": "calls", "code": "i", "included": "5", **HOURS},
        {"metric": "calls", "code": "j", "model": "sum", "parts": [UNIT, {**UNIT, "metric": "load"}]},
    ]
    refused = api.post("/billing/plans", plan_body("wrong", prices=prices))
    assert refused.status_code == 422
    told_where = {error["pointer"]: error["detail"] for error in refused.get_json()["errors"]}
    assert told_where.keys() == {
        "/prices/1/tiers/1/up_to",
        "/prices/2/metric",
        "/prices/3/metric",
        "/prices/4/dimensions/0",
        "/prices/5/dimensions",
        "/prices/6/parts/1/metric",
        "/prices/7/capacity_tiers/0/limits/disks",
        "/prices/8/included",
        "/prices/9/parts/1/metric",
    }
    assert told_where["/prices/9/parts/1/metric"].startswith('must measure what "calls" does, what happened: "load" measures what stood')
    assert told_where["/prices/4/dimensions/0"].endswith("did you mean region?")
    assert told_where["/prices/6/parts/1/metric"].endswith("did you mean calls?")
