"""Where a period will end: by weekday, with a range that past forecasts earned, and priced like an invoice."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from sqlalchemy.orm import Session

from core.analytics.forecast import estimate
from core.analytics.spend import forecast
from tests.factories import START, make_metric, make_organization, make_plan, make_subscription, use

JUNE = (date(2026, 6, 1), date(2026, 6, 30))
JULY = (date(2026, 7, 1), date(2026, 7, 31))


def workdays(first: date, last: date) -> dict[date, Decimal]:
    """100 on each working day, nothing at weekends."""
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    return {day: Decimal(100 if day.weekday() < 5 else 0) for day in days}


def test_working_days_and_weekends_are_told_apart() -> None:
    daily = workdays(date(2026, 6, 1), date(2026, 7, 15))
    found = estimate(daily, first=JULY[0], last=JULY[1], today=date(2026, 7, 15), closed=[JUNE])
    assert found.expected == sum(workdays(*JULY).values())
    assert (found.low, found.high, found.early) == (found.expected, found.expected, False)


def test_today_counts_what_is_missing_to_its_average() -> None:
    daily = workdays(date(2026, 6, 1), date(2026, 7, 15)) | {date(2026, 7, 15): Decimal(30)}
    found = estimate(daily, first=JULY[0], last=JULY[1], today=date(2026, 7, 15))
    assert found.expected == sum(workdays(*JULY).values())


def test_less_than_a_week_of_data_is_an_early_estimate() -> None:
    daily = {date(2026, 7, day): Decimal(50) for day in (1, 2, 3)}
    found = estimate(daily, first=JULY[0], last=JULY[1], today=date(2026, 7, 4))
    assert (found.expected, found.early) == (Decimal(50 * 31), True)


def test_the_range_is_what_past_forecasts_missed_by() -> None:
    daily = workdays(date(2026, 5, 1), date(2026, 7, 15))
    grown = {day: quantity * 2 if day >= date(2026, 6, 16) else quantity for day, quantity in daily.items()}
    found = estimate(grown, first=JULY[0], last=JULY[1], today=date(2026, 7, 15), closed=[JUNE])
    assert found.low <= found.expected < found.high


def test_no_usage_is_forecast_as_none() -> None:
    assert estimate({}, first=JULY[0], last=JULY[1], today=date(2026, 7, 4)).expected == 0


def test_spend_is_forecast_through_the_prices(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    tiers = [{"up_to": "1000", "unit_price": "0"}, {"up_to": None, "unit_price": "0.10"}]
    plan = make_plan(session, base_price="50.00", prices=[(metric, {"model": "graduated", "tiers": tiers})])
    subscription = make_subscription(session, organization, plan)
    for offset in range(44):
        use(session, organization, metric, START + timedelta(days=offset, hours=9), 100)
    found = forecast(session, organization.id, subscription.id, as_of=datetime(2026, 7, 15, tzinfo=UTC))
    assert found is not None
    assert (found.expected_minor, found.low_minor, found.high_minor, found.early) == (5000 + 21000, 26000, 26000, False)
    assert found.period.end == datetime(2026, 8, 1, tzinfo=UTC)


def test_a_paused_subscription_has_no_forecast(session: Session) -> None:
    organization = make_organization(session)
    subscription = make_subscription(session, organization, make_plan(session))
    subscription.terms[0].end_at = START + timedelta(days=5)
    session.flush()
    assert forecast(session, organization.id, subscription.id, as_of=START + timedelta(days=9)) is None
