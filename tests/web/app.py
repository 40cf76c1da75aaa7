"""A small application with the real layouts and components and pages that show them all; no database."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import jinja2
from flask import Flask, Response, render_template, request

from core.config import Settings
from tests.web import sample
from web import assets, charts, csp, filters, htmx, shell
from web.pagination import Page
from web.shell import NavGroup, NavItem, Shell

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("overview", "invoice", "usage", "dashboard", "run", "forms", "sign_in", "parts", "compare", "quote")
ADMIN = ("dashboard", "run")


def portal_shell() -> Shell:
    """The customer's frame."""
    keys = (
        ("overview", "Overview", "home"),
        ("usage", "Usage", "usage"),
        ("invoice", "Invoices", "invoice"),
        ("plan", "Plan", "plan"),
        ("forms", "Payment", "card"),
        ("credits", "Credits", "coin"),
        ("parts", "Alerts & caps", "bell"),
        ("settings", "Settings", "settings"),
    )
    items = tuple(
        NavItem(key, label, f"/{key}", icon, "1 overdue" if key == "invoice" else "", key == "invoice") for key, label, icon in keys
    )
    return Shell(
        "Northlight AI",
        "/overview",
        (NavGroup(items),),
        "Quillmark GmbH",
        "Build plan",
        "Lena Hartmann",
        "Owner",
        "/sign-out",
        "/help",
        footer="Northlight AI GmbH, Torstraße 140, 10119 Berlin",
    )


def admin_shell() -> Shell:
    """The operator's frame."""

    def group(title: str, *rows: tuple[str, str, str, str]) -> NavGroup:
        return NavGroup(tuple(NavItem(key, label, f"/{key}", icon, count) for key, label, icon, count in rows), title)

    return Shell(
        "Northlight AI",
        "/dashboard",
        (
            group(
                "Work",
                ("dashboard", "Dashboard", "home", ""),
                ("run", "Invoice runs", "run", "175"),
                ("payments", "Payments", "card", "31"),
            ),
            group(
                "Customers",
                ("accounts", "Accounts", "users", ""),
                ("subscriptions", "Subscriptions", "plan", ""),
                ("invoices", "Invoices", "invoice", ""),
            ),
            group("Catalogue", ("metrics", "Metrics", "activity", ""), ("plans", "Plans & prices", "tag", "")),
            group("Data", ("events", "Events", "list", ""), ("audit", "Audit", "clock", "")),
        ),
        member_name="Mara König",
        member_detail="Billing ops",
        sign_out_action="/sign-out",
        search_href="/accounts",
        help_href="/help",
    )


def create_app() -> Flask:
    """The gallery; `?errors=1` shows the forms refused."""
    app = Flask("gallery", root_path=str(ROOT), static_folder=str(ROOT / "static"), template_folder=str(ROOT / "templates"))
    app.config["SETTINGS"] = Settings()
    app.jinja_loader = jinja2.ChoiceLoader([jinja2.FileSystemLoader(ROOT / "templates"), jinja2.FileSystemLoader(Path(__file__).parent)])
    app.jinja_env.undefined = jinja2.StrictUndefined
    app.jinja_env.globals["csrf_token"] = lambda: "token-of-the-test"
    for part in (csp, htmx, filters, assets, shell):
        part.init_app(app)
    for name in PAGES:
        app.add_url_rule(f"/{name}", name, _view(name), methods=["GET", "POST"])
    app.add_url_rule("/rows", "rows", _rows)
    app.add_url_rule(
        "/spend",
        "spend",
        lambda: htmx.page("gallery/parts.html", partial="gallery/_spend.html", announce="Spend so far €1,381.27", **_context("parts")),
    )
    return app


def _view(name: str):
    def view() -> Response:
        errors = (
            {"billing_email": "Enter an e-mail address like finance@company.example", "when": "Choose when the plan changes"}
            if "errors" in request.args
            else None
        )
        return htmx.page(f"gallery/{name}.html", status=422 if errors else 200, errors=errors, **_context(name))

    return view


def _rows() -> str:
    return render_template("gallery/_rows.html", rows=range(50, 55), page=Page((), None))


def _context(name: str) -> dict[str, object]:
    return {
        "shell": admin_shell() if name in ADMIN else portal_shell(),
        "current": name,
        "expand": "tiers" in request.args,
        "statement_view": sample.INVOICE if name == "invoice" else sample.SO_FAR,
        "month": charts.bar_chart(sample.month_chart()),
        "stacked": charts.bar_chart(sample.stacked_chart()),
        "stacked_names": sample.stacked_chart().series,
        "stacked_json": charts.plotly_json(
            sample.stacked_chart(), [[f"€{sum(bar.values):.2f}" for bar in sample.stacked_chart().bars]] * 5
        ),
        "days": sample.DAYS,
        "year": charts.bar_chart(sample.year_chart()),
        "spark": charts.sparkline([4, 3, 5, 6, 5, 7, 6, 8, 9, 7, 8, 7, 8]),
        "trend": charts.small_bars([8, 9, 8], 21),
        "ageing": charts.stacked_bar(
            [
                ("f-mut", Decimal("82.8")),
                ("f-c1 f-soft", Decimal("11.7")),
                ("f-c1", Decimal("3.6")),
                ("f-bad f-softer", Decimal("1.2")),
                ("f-bad", Decimal("0.7")),
            ]
        ),
        "cause": charts.stacked_bar([("f-c1", Decimal(13910)), ("f-c8", Decimal(417))], "cause", 6),
        "page": Page((), "/rows?after=50"),
    }
