# ruff: noqa: E501 - a customer is a line
"""The facts of the demo: what is measured and sold, who the customers are, and the shape of their usage. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

EVENT = "llm.usage"
METRICS: tuple[dict[str, Any], ...] = (
    {"code": "llm_output_tokens", "name": "Output tokens", "unit": "tokens", "aggregation": "sum", "property": "output_tokens"},
    {"code": "llm_input_tokens", "name": "Input tokens", "unit": "tokens", "aggregation": "sum", "property": "input_tokens"},
    {"code": "llm_requests", "name": "Requests", "unit": "requests", "aggregation": "sum", "property": "requests"},
)
PROJECTS = (
    ("assistant-prod", Decimal("0.42")),
    ("doc-import", Decimal("0.28")),
    ("search-index", Decimal("0.19")),
    ("eval-nightly", Decimal("0.11")),
)


def tiers(*steps: tuple[str | None, str]) -> dict[str, Any]:
    """A graduated price from (up to, unit price) pairs."""
    return {"model": "graduated", "tiers": [{"up_to": up_to, "unit_price": price} for up_to, price in steps]}


def packages(free: str, price: str) -> dict[str, Any]:
    """Requests in packages of 1,000 after the free ones."""
    return {"model": "package", "package_size": "1000", "package_price": price, "free_units": free}


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan for sale: base price a month in EUR, the prices of the three metrics in order of METRICS."""

    code: str
    name: str
    base: Decimal
    prices: tuple[dict[str, Any], ...]
    description: str
    trial_days: int = 0


OFFERS = (
    Offer("starter", "Starter", Decimal(0), (tiers((None, "0.0000064")), tiers((None, "0.0000016")), packages("100000", "0.06")),
          "No base fee; for trying things out", 14),
    Offer("build", "Build", Decimal(99), (tiers(("20000000", "0.0000048"), ("100000000", "0.000004"), (None, "0.0000032")),
          tiers(("100000000", "0.0000012"), ("500000000", "0.00000096"), (None, "0.0000008")), packages("1000000", "0.04")),
          "For a product in production"),
    Offer("scale", "Scale", Decimal(249), (tiers(("20000000", "0.0000038"), ("100000000", "0.0000031"), (None, "0.00000245")),
          tiers(("100000000", "0.00000095"), ("500000000", "0.0000008"), (None, "0.00000062")), packages("5000000", "0.03")),
          "Lower unit prices for steady volume"),
    Offer("reserve", "Reserve", Decimal(1200), (tiers((None, "0.0000025")), tiers((None, "0.00000066")), packages("0", "0.02")),
          "Committed capacity"),
)  # fmt: skip
RATES = {"EUR": Decimal(1), "USD": Decimal("1.1"), "GBP": Decimal("0.85"), "JPY": Decimal(160)}
"""What a euro of list price is in the other price lists."""


@dataclass(frozen=True, slots=True)
class Customer:
    """One account. `daily` is output tokens on a working day; `months` how long it has been there; `anchor` of its cycles."""

    name: str
    slug: str
    offer: str
    daily: int
    months: int
    address: dict[str, str]
    currency: str = "EUR"
    timezone: str = "Europe/Berlin"
    tax_id: str | None = None
    card: bool = True
    anchor: str = "calendar"
    traits: frozenset[str] = field(default_factory=frozenset)


def _address(line: str, code: str, city: str, country: str) -> dict[str, str]:
    return {"line1": line, "postal_code": code, "city": city, "country": country}


SHOWCASE = Customer("Quillmark GmbH", "quillmark", "build", 9_400_000, 6, _address("Am Sandtorkai 48", "20457", "Hamburg", "DE"),
                    tax_id="DE136695976", traits=frozenset({"declined"}))  # fmt: skip
CUSTOMERS = (
    SHOWCASE,
    Customer("Kestrel Analytics Ltd", "kestrel", "build", 5_100_000, 5, _address("12 Clerkenwell Green", "EC1R 0DP", "London", "GB"), "GBP", "Europe/London"),
    Customer("Copperleaf Inc", "copperleaf", "scale", 14_000_000, 5, _address("410 Terry Ave", "98109", "Seattle", "US"), "USD", "America/Los_Angeles"),
    Customer("Hoshino Systems KK", "hoshino", "starter", 1_900_000, 4, _address("2-11-3 Meguro", "153-0063", "Tokyo", "JP"), "JPY", "Asia/Tokyo"),
    Customer("Tideway Robotics BV", "tideway", "scale", 11_500_000, 4, _address("Keizersgracht 241", "1016 EA", "Amsterdam", "NL"),
             timezone="Europe/Amsterdam", tax_id="NL004495445B01", traits=frozenset({"downgrade", "late"})),
    Customer("Fjordline Media AS", "fjordline", "starter", 800_000, 3, _address("Karl Johans gate 5", "0154", "Oslo", "NO"),
             timezone="Europe/Oslo", traits=frozenset({"canceled"})),
    Customer("Lumen Atelier SAS", "lumen", "starter", 350_000, 0, _address("8 rue de Charonne", "75011", "Paris", "FR"),
             timezone="Europe/Paris", traits=frozenset({"trial"})),
)  # fmt: skip
"""Billed by the calendar month; their invoices are closed and settled."""
UNDER_REVIEW = (
    Customer("Halden Robotics AG", "halden", "scale", 6_000_000, 4, _address("Torstraße 12", "10119", "Berlin", "DE"), card=False, traits=frozenset({"spike"})),
    Customer("Papermoon Studio SL", "papermoon", "build", 2_200_000, 4, _address("Calle Mayor 9", "28013", "Madrid", "ES"), timezone="Europe/Madrid", traits=frozenset({"growth"})),
    Customer("Bramble Search BV", "bramble", "build", 1_400_000, 4, _address("Coolsingel 40", "3011 AD", "Rotterdam", "NL"), timezone="Europe/Amsterdam", card=False, traits=frozenset({"silent"})),
    Customer("Vantage Legal SE", "vantage", "reserve", 16_000_000, 4, _address("Kaiserstraße 3", "60311", "Frankfurt am Main", "DE"), card=False, traits=frozenset({"drop"})),
    Customer("Arbor Health GmbH", "arbor", "build", 3_000_000, 4, _address("Lindenallee 7", "50968", "Köln", "DE")),
    Customer("Orchard Logistics GmbH", "orchard", "build", 2_600_000, 4, _address("Speicherstadt 2", "20457", "Hamburg", "DE"), card=False),
    Customer("Nightjar Games GmbH", "nightjar", "starter", 900_000, 1, _address("Karl-Heine-Straße 55", "04229", "Leipzig", "DE"), card=False, traits=frozenset({"first"})),
)  # fmt: skip
"""Billed on the anniversary of today: their drafts wait in a run, some of them unlike the months before."""
