"""Invoice totals: discounts, minimum and tax of the kernel, in the order line discounts, invoice discounts and coupons, tax, credits."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from core.money import round_half_up, to_decimal
from core.pricing.discounts import Discount, DiscountType, discounted
from core.pricing.modifiers import Commitment, bounded
from core.pricing.price import price
from core.pricing.rules import PerUnit
from core.pricing.tax import included_tax_minor, tax_minor
from tests.golden.compare import Unsupported
from tests.golden.reading import decimal, only

TOTALS = (
    "currency lines lines_unrounded lines_precise invoice_discounts line_discount_percent coupons tax_rates tax_behavior prepaid_credits "
    "credit_notes minimum"
)


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """The sums of an invoice, after rounding."""
    if "overage_factor" in given:
        return _commitment(given)
    only(given, TOTALS)
    currency = given.get("currency", "USD")
    amounts = [round_half_up(amount, currency) for amount in _amounts(given)]
    top_up = _top_up(given, sum(amounts), currency)
    if top_up:
        amounts.append(top_up)
    first = _line_discounts(given, amounts, currency)
    left = [amount - part for amount, part in zip(amounts, first, strict=True)]
    invoice_wide = discounted(left, [_discount(data) for data in given.get("invoice_discounts", [])], currency)
    coupons = _coupons(given, [amount - part for amount, part in zip(left, invoice_wide, strict=True)], currency)
    second = [a + b for a, b in zip(invoice_wide, coupons, strict=True)]
    parts = [a + b for a, b in zip(first, second, strict=True)]
    nets = [amount - part for amount, part in zip(left, second, strict=True)]
    sums: dict[str, object] = {
        "subtotal": sum(amounts),
        "lines_rounded": amounts,
        "discount_total": sum(parts),
        "line_discounts": parts,
        "line_coupons": second,
        "coupons_total": sum(second),
        "minimum_top_up": top_up,
    }
    if "line_discount_percent" in given:
        sums["discount_on_combined"] = Discount(DiscountType.PERCENT, decimal(given["line_discount_percent"])).minor(sum(amounts), currency)
    return _major(sums | _taxed(given, nets, currency), currency)


def _amounts(given: Mapping[str, Any]) -> Sequence[Decimal]:
    for key in ("lines_unrounded", "lines_precise"):
        if key in given:
            return [decimal(amount) for amount in given[key]]
    for line in given["lines"]:
        only(line, "amount discount kind tax_rates subscription metric")
        if line.get("kind", "minimum_top_up") != "minimum_top_up" and given.get("prepaid_credits"):
            raise Unsupported("credits limited to a kind of line")
    return [decimal(line["amount"]) for line in given["lines"]]


def _top_up(given: Mapping[str, Any], subtotal: int, currency: str) -> int:
    """What is missing to the minimum, by the part of the cycle it covers."""
    minimum = given.get("minimum")
    if not minimum:
        return 0
    part = Fraction(int(minimum.get("days_used", 1)), int(minimum.get("days_total", 1)))
    least = to_decimal(round_half_up(Fraction(decimal(minimum["amount"])) * part, currency), currency)
    return round_half_up(bounded(to_decimal(subtotal, currency), minimum=least).top_up, currency)


def _discount(data: Mapping[str, Any], more: str = "") -> Discount:
    only(data, f"type value {more}")
    return Discount(DiscountType(data["type"]), decimal(data["value"]))


def _coupons(given: Mapping[str, Any], amounts: Sequence[int], currency: str) -> list[int]:
    """What each line gives up to coupons: to those limited to a metric or subscription first, then to the others, in turn."""
    lines = [*given.get("lines", []), *[{}] * len(amounts)][: len(amounts)]
    taken = [0] * len(amounts)
    for coupon in sorted(given.get("coupons", []), key=lambda coupon: not _limits(coupon)):
        places = [i for i, line in enumerate(lines) if all(line.get(name) in allowed for name, allowed in _limits(coupon).items())]
        discount = _discount(coupon, "applies_to_metrics applies_to_subscriptions")
        for i, part in zip(places, discounted([amounts[i] - taken[i] for i in places], [discount], currency), strict=True):
            taken[i] += part
    return taken


def _limits(coupon: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Which lines the coupon is for: values by the key of a line."""
    given = {"metric": coupon.get("applies_to_metrics"), "subscription": coupon.get("applies_to_subscriptions")}
    return {name: allowed for name, allowed in given.items() if allowed}


def _line_discounts(given: Mapping[str, Any], amounts: Sequence[int], currency: str) -> list[int]:
    if "line_discount_percent" in given:
        discount = Discount(DiscountType.PERCENT, decimal(given["line_discount_percent"]))
        return [discount.minor(amount, currency) for amount in amounts]
    lines = [*given.get("lines", []), *[{}] * len(amounts)][: len(amounts)]
    agreed = [_discount(line["discount"]) if line.get("discount") else Discount(DiscountType.FIXED, Decimal(0)) for line in lines]
    return [discount.minor(amount, currency) for discount, amount in zip(agreed, amounts, strict=True)]


def _taxed(given: Mapping[str, Any], nets: Sequence[int], currency: str) -> dict[str, object]:
    """Each rate once on the sum of its lines; a line's own tax is for show. Credits pay what is then due."""
    lines = given.get("lines", [])
    common = [decimal(rate) for rate in given.get("tax_rates", [])]
    rates = [
        [decimal(r) for r in lines[i]["tax_rates"]] if i < len(lines) and "tax_rates" in lines[i] else common for i in range(len(nets))
    ]
    inclusive = given.get("tax_behavior", "exclusive") == "inclusive"
    if inclusive and any(len(line) > 1 for line in rates):
        raise Unsupported("several inclusive rates on one line")
    tax_of = included_tax_minor if inclusive else tax_minor
    bases: dict[Decimal, int] = {}
    for net, line_rates in zip(nets, rates, strict=True):
        for rate in line_rates:
            bases[rate] = bases.get(rate, 0) + net
    taxes = {rate: tax_of(base, rate, currency) for rate, base in bases.items()}
    net, tax = sum(nets), sum(taxes.values())
    gross = net if inclusive else net + tax
    credits_given = [*given.get("prepaid_credits", []), *given.get("credit_notes", [])]
    credit = min(sum(round_half_up(decimal(amount), currency) for amount in credits_given), gross)
    out: dict[str, object] = {
        "subtotal_excluding_tax": gross - tax,
        "line_taxes": [sum(tax_of(net, rate, currency) for rate in line) for net, line in zip(nets, rates, strict=True)],
        "taxes": list(taxes.values()),
        "tax_total": tax,
        "taxes_by_rate": [{"rate": str(rate), "base": bases[rate], "amount": taxes[rate]} for rate in bases],
        "subtotal_including_tax": gross,
        "credits_applied": credit,
        "total": gross - credit,
        "amount_due": gross - credit,
        "effective_tax_rate": str(Decimal(tax * 100) / net) if net else "0",
    }
    if len(given.get("prepaid_credits", [])) == 1:
        out["wallet_balance"] = round_half_up(decimal(given["prepaid_credits"][0]), currency) - min(
            credit, round_half_up(decimal(given["prepaid_credits"][0]), currency)
        )
    return out


def _major(value: Any, currency: str) -> Any:
    """Minor units to major units, through lists and objects; texts are rates and stay."""
    match value:
        case int():
            return to_decimal(value, currency)
        case str():
            return decimal(value)
        case list():
            return [_major(item, currency) for item in value]
        case dict():
            return {key: _major(item, currency) for key, item in value.items()}
        case _:
            return value


def _commitment(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "usage unit_price commitment_amount commitment_quantity overage_factor true_up currency")
    model = PerUnit(decimal(given["unit_price"]))
    committed = decimal(given["commitment_amount"]) if "commitment_amount" in given else price(model, decimal(given["commitment_quantity"]))
    commitment = Commitment(committed, decimal(given["overage_factor"]), bool(given.get("true_up")))
    result = commitment.apply(price(model, decimal(given["usage"])))
    return {"total": result.amount, "true_up": result.top_up}
