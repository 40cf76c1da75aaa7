"""One customer's figures, fixed, for looking at the components: a statement, an invoice, a month of days."""

from __future__ import annotations

from decimal import Decimal

from core.invoicing.statement import FootRow, Group, Row, Statement, TierRow
from web.charts import Bar, Chart

D = Decimal
DAYS = ["40", "87", "101", "87", "83", "75", "36", "31", "83", "86", "85", "99", "72", "33", "30", "77", "70", "71", "76", "64", "30"]
AHEAD = [(64, 59, 67), (69, 62, 73), (70, 63, 76), (76, 68, 82), (67, 58, 72), (30, 26, 34), (26, 22, 30), (64, 54, 74)]


def tokens(
    name: str, code: str, quantity: int, minor: int, compare: int, share: str, steps: list[tuple[str, int, str, str]], detail: str
) -> Row:
    """A charge walked through its tiers; `steps` are (label, quantity, unit price, amount)."""
    tiers = tuple(TierRow(label, D(units), D(price), None, D(amount)) for label, units, price, amount in steps)
    return Row(
        code,
        name,
        minor,
        detail,
        D(quantity),
        "",
        "by tier",
        D(share),
        compare,
        f"/usage?metric={code}",
        tiers,
        "Each unit costs what its own tier says; the parts are added up.",
        "rounded once, half up, to the cent",
        csv_href=f"/lines/{code}.csv",
    )


OUTPUT = tokens(
    "Output tokens",
    "output_tokens",
    241_793_100,
    86974,
    64900,
    "0.487",
    [
        ("First 20,000,000", 20_000_000, "0.0000048", "96"),
        ("20,000,001 to 100,000,000", 80_000_000, "0.000004", "320"),
        ("Above 100,000,000", 141_793_100, "0.0000032", "453.73792"),
    ],
    "3 tiers",
)
INPUT = tokens(
    "Input tokens",
    "input_tokens",
    771_952_344,
    72156,
    54241,
    "0.407",
    [
        ("First 100,000,000", 100_000_000, "0.0000012", "120"),
        ("100,000,001 to 500,000,000", 400_000_000, "0.00000096", "384"),
        ("Above 500,000,000", 271_952_344, "0.0000008", "217.5618752"),
    ],
    "3 tiers, €1.20 to €0.80",
)


def small(code: str, name: str, quantity: str, unit: str, price: str, minor: int, detail: str, share: str = "0") -> Row:
    """A charge without tiers worth opening."""
    return Row(code, name, minor, detail, D(quantity), unit, price, D(share), 0)


INVOICE = Statement(
    "EUR",
    "Statement",
    (
        Group("Plan, in advance", (Row("build.base", "Build plan", 9900, "1–30 Nov 2026", D(1), "month", "€99.00"),)),
        Group(
            "Usage, 1–31 Oct 2026 (Europe/Berlin)",
            (
                OUTPUT,
                INPUT,
                small("cached", "Cached input tokens", "292064729", "", "€0.24 per 1 M", 7010, "One price"),
                small("storage", "Vector storage", "25.6", "GB", "€0.18 per GB", 11, "25 GB included, 0.6 GB charged"),
                small("requests", "Requests", "998669", "", "€0.04 per 1,000", 0, "1,000,000 included, 1,331 left"),
            ),
        ),
    ),
    (
        FootRow("Subtotal", 176051),
        FootRow("Startup programme, 10 % off usage of €1,661.51", -16615),
        FootRow("Credit, launch grant", -15000),
        FootRow("Net", 144436, strong=True),
        FootRow("VAT 19 % on €1,444.36", 27443),
    ),
    FootRow("Total", 171879),
    rounding_note="Each line is rounded once, half up, to the cent. VAT is rounded once, on the sum. "
    "Rated on 1 Nov 2026 at 00:14 and frozen since.",
)

SO_FAR = Statement(
    "EUR",
    "Statement so far",
    (
        Group("Plan, in advance", (Row("build.base", "Build plan", 9900, "1–31 Dec 2026", D(1), "month", "", D("0.065"), 9900),)),
        Group(
            "Usage, 1–22 Nov",
            (
                Row(
                    "output_tokens",
                    "Output tokens",
                    74279,
                    "3 tiers, €4.80 to €3.20 per 1 M",
                    D(202_123_195),
                    "",
                    "",
                    D("0.487"),
                    64900,
                    "/usage",
                ),
                Row(
                    "input_tokens",
                    "Input tokens",
                    62060,
                    "3 tiers, €1.20 to €0.80 per 1 M",
                    D(645_752_663),
                    "",
                    "",
                    D("0.407"),
                    54241,
                    "/usage",
                ),
                Row("cached", "Cached input tokens", 6028, "€0.24 per 1 M", D(251_164_611), "", "", D("0.04"), 4999),
                Row("storage", "Vector storage", 108, "25 included, then €0.18 per GB", D("31.0"), "GB", "", D("0.001"), 0),
                Row("requests", "Requests", 0, "1,000,000 included", D(839_015), "", "", D(0), 0),
            ),
        ),
    ),
    (
        FootRow("Subtotal", 152375, 134040),
        FootRow("Startup programme, 10 % off usage", -14248, -12414),
        FootRow("Spend so far", 138127, 121626, strong=True),
        FootRow("Credit, launch grant", -15000, -15000),
        FootRow("VAT 19 % on €1,231.27", 23394, 20259),
    ),
    FootRow("Invoice total so far", 146521, 126885),
    note="For the invoice of 1 Dec 2026",
    compare_label="1–22 Oct",
    rounding_note="Each line is rounded once, half up, to the cent. VAT is rounded once, on the sum.",
)


def month_chart(identifier: str = "days") -> Chart:
    """Usage per day: past days, today hatched inside its estimate, the rest forecast with a range."""
    labels = {1: "1", 8: "8", 15: "15", 22: "22 Nov", 30: "30"}
    bars = [Bar((D(value),), f"{day} Nov", labels.get(day, "")) for day, value in enumerate(DAYS, 1)]
    bars.append(Bar((D(12),), "22 Nov", "22 Nov", "partial", estimate=D(26)))
    bars += [
        Bar((D(mid),), f"{day} Nov", labels.get(day, ""), "forecast", low=D(low), high=D(high))
        for day, (mid, low, high) in enumerate(AHEAD, 23)
    ]
    return Chart(
        identifier,
        "Usage per day from 1 to 30 November, highest on 3 November with €101. The table below has every day.",
        tuple(bars),
        axis_end=lambda value: f"€{value}",
    )


def stacked_chart() -> Chart:
    """Cost per day of five projects, today partial."""
    names = ("assistant-prod", "doc-import", "search-index", "eval-nightly", "Other")
    share = [D("0.46"), D("0.2"), D("0.17"), D("0.11"), D("0.06")]
    bars = [
        Bar(tuple(D(value) / 2 * part for part in share), f"{day} Nov", str(day), "partial" if day == 21 else "actual")
        for day, value in enumerate(DAYS, 1)
    ]
    return Chart("projects", "Cost per day by project.", tuple(bars), names, 280, axis=lambda value: f"€{value}")


def year_chart() -> Chart:
    """Twelve months, the running one partial."""
    values = ["1010", "1035", "1050", "1090", "1130", "1140", "1190", "1205", "1240", "1300", "1360", "1005"]
    months = ["Dec", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov"]
    bars = tuple(Bar((D(v),), m, m, "partial" if m == "Nov" else "actual") for v, m in zip(values, months, strict=True))
    return Chart("months", "Invoiced per month.", bars, height_px=200)
