"""The web room's rules: fragments and pages, headers, addressed files, preferences, paging, charts."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web import sample
from tests.web.app import PAGES, create_app
from web import charts
from web.csp import PAYMENT_ORIGINS, policy
from web.htmx import redirect_to
from web.pagination import paginate
from web.shell import same_site_path

D = Decimal


@pytest.fixture(scope="module")
def gallery() -> Flask:
    app = create_app()
    app.add_url_rule("/moved", "moved", lambda: redirect_to("/overview"), methods=["POST"])
    return app


@pytest.fixture
def visitor(gallery: Flask) -> FlaskClient:
    return gallery.test_client()


@pytest.mark.parametrize(
    ("headers", "whole"),
    [
        ({}, True),
        ({"HX-Request": "true"}, False),
        ({"HX-Request": "true", "HX-History-Restore-Request": "true"}, True),
        ({"HX-Request": "true", "HX-Boosted": "true"}, True),
    ],
)
def test_only_a_swap_gets_a_fragment(visitor: FlaskClient, headers: dict[str, str], whole: bool) -> None:
    answer = visitor.get("/spend", headers=headers)
    assert ("<!doctype html>" in answer.text) is whole
    assert ('hx-swap-oob="innerHTML:#live"' in answer.text) is not whole
    assert answer.headers["Vary"] == "HX-Request"
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_a_redirect_tells_htmx_to_load_the_page(visitor: FlaskClient) -> None:
    plain, htmx = visitor.post("/moved"), visitor.post("/moved", headers={"HX-Request": "true"})
    assert (plain.status_code, plain.headers["Location"]) == (303, "/overview")
    assert (htmx.status_code, htmx.headers["HX-Redirect"]) == (204, "/overview")
    assert "Location" not in htmx.headers


@pytest.mark.parametrize("path", [*(f"/{name}" for name in PAGES), "/nowhere", "/static/app.css", "/static/favicon.svg"])
def test_every_answer_carries_the_security_headers(visitor: FlaskClient, path: str) -> None:
    answer = visitor.get(path)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "'unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert ("no-store" in answer.headers["Cache-Control"]) is not path.startswith("/static/")
    assert "Strict-Transport-Security" not in answer.headers
    assert visitor.get(path, base_url="https://billing.example").headers["Strict-Transport-Security"].startswith("max-age=31536000")


def test_payment_pages_alone_name_the_provider() -> None:
    assert "https://js.stripe.com" not in policy({})
    widened = policy(PAYMENT_ORIGINS)
    assert "script-src 'self' https://js.stripe.com" in widened
    assert "frame-src 'self' https://js.stripe.com https://hooks.stripe.com" in widened


def test_addressed_files_are_kept_for_a_year_and_others_are_asked_for(visitor: FlaskClient) -> None:
    page = visitor.get("/overview").text
    address = page.split('rel="stylesheet" href="')[1].split('"')[0]
    kept = visitor.get(address, headers={"Accept-Encoding": "gzip"})
    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert kept.headers["Content-Encoding"] == "gzip"
    assert len(kept.data) < 12_000
    assert "immutable" not in visitor.get("/static/app.css").headers["Cache-Control"]
    assert visitor.get("/static/app.css", headers={"If-None-Match": kept.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "portal", "/a\nb"]
)
def test_preferences_return_to_this_site_alone(target: str) -> None:
    assert same_site_path(target) == "/"


def test_a_theme_nobody_offers_is_forgotten(visitor: FlaskClient) -> None:
    visitor.post("/preferences", data={"theme": "neon", "next": "/overview"})
    assert "data-theme" not in visitor.get("/overview").text
    assert visitor.post("/preferences", data={"theme": "dark", "next": "/overview"}).headers["Location"] == "/overview"
    assert 'data-theme="dark"' in visitor.get("/overview").text


def test_paging_keeps_the_filters_and_stops_at_the_end(gallery: Flask) -> None:
    with gallery.test_request_context("/overview?status=open&after=9"):
        page = paginate(list(range(51)), key=lambda row: row)
        assert len(page.rows) == 50
        assert page.more_href == "/overview?status=open&after=49"
        assert paginate(list(range(50)), key=lambda row: row).more_href is None


@pytest.mark.parametrize(
    ("highest", "top"), [("101", "120"), ("60", "60"), ("1360", "1500"), ("0", "1"), ("0.0031", "0.004"), ("999", "1000")]
)
def test_scales_end_at_round_numbers(highest: str, top: str) -> None:
    assert charts.scale_top(D(highest)) == D(top)


def test_the_chart_draws_each_kind_of_day() -> None:
    drawn = ET.fromstring(str(charts.bar_chart(sample.month_chart())))
    assert drawn.get("role") == "img"
    assert "highest on 3 November" in (drawn.get("aria-label") or "")
    classes = [rect.get("class") or "" for rect in drawn.iter("rect")]
    assert (classes.count("forecast"), classes.count("range"), classes.count("estimate")) == (8, 8, 1)
    assert "style" not in {name for element in drawn.iter() for name in element.attrib}


def test_labels_from_customers_cannot_leave_their_place() -> None:
    hostile = '</script><svg onload="x">'
    chart = replace(
        sample.stacked_chart(),
        series=(hostile, "b", "c", "d", "Other"),
        sentence=hostile,
        bars=tuple(replace(bar, name=hostile) for bar in sample.stacked_chart().bars),
    )
    assert hostile not in charts.bar_chart(chart)
    figure = charts.plotly_json(chart, [[hostile] * len(chart.bars)] * 5)
    assert "<" not in figure
    assert json.loads(figure)["data"][0]["name"] == hostile


def test_the_interactive_figure_has_the_same_numbers() -> None:
    chart = sample.stacked_chart()
    figure = json.loads(charts.plotly_json(chart, [[str(sum(bar.values)) for bar in chart.bars]] * 5))
    assert [trace["meta"]["token"] for trace in figure["data"]] == ["c1", "c2", "c3", "c4", "c8"]
    assert [D(value) for value in figure["data"][0]["y"]] == [bar.values[0] for bar in chart.bars]


def test_the_interactive_figure_outlines_what_is_compared_with() -> None:
    chart = sample.stacked_chart()
    compared = replace(chart, bars=tuple(replace(bar, previous=D(index) if index % 2 else None) for index, bar in enumerate(chart.bars)))
    shapes = json.loads(charts.plotly_json(compared, [[""] * len(chart.bars)] * 5))["layout"]["shapes"]
    assert [(round(shape["x0"] + 0.31), D(shape["y0"]), D(shape["y1"])) for shape in shapes] == [
        (index, 0, index) for index in range(1, len(chart.bars), 2)
    ]


def test_sparklines_need_two_values_and_survive_a_flat_line() -> None:
    assert charts.sparkline([3]) == ""
    assert "NaN" not in charts.sparkline([2, 2, 2])
    assert charts.stacked_bar([]) == '<svg class="stackbar" aria-hidden="true"></svg>'
    assert charts.small_bars([0, 0, 0], 0).count("<rect") == 4
