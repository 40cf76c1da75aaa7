"""Which pages there are: the sites' own route map, with an example of each found by following links from the start page."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qsl, urljoin, urlsplit

from flask import Flask
from playwright.sync_api import APIRequestContext
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from admin import blueprint as admin
from portal import blueprint as portal

LINK = re.compile(r"""(?:href|hx-get)="(/[^"#]*)""")
EXAMPLES_MAX = 2
"""Addresses opened for each route: a plain one, and one with a query."""


class Sites:
    """The GET routes of both sites."""

    def __init__(self) -> None:
        app = Flask("routes", static_folder=None)
        app.register_blueprint(portal)
        app.register_blueprint(admin)
        self.map: MapAdapter = app.url_map.bind("localhost")
        self.routes = {str(rule.endpoint): rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or set())}

    def endpoint(self, address: str) -> str | None:
        """The route of an address, None when it is not a page of ours."""
        try:
            return str(self.map.match(urlsplit(address).path, method="GET")[0])
        except HTTPException:
            return None


def crawl(sites: Sites, http: APIRequestContext, start: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Addresses found for each route, and what did not answer with 200."""
    found: dict[str, list[str]] = {}
    broken: list[str] = []
    waiting = list(start)
    while waiting:
        address = waiting.pop(0)
        endpoint = sites.endpoint(address)
        if endpoint is None or not _wanted(found.get(endpoint, []), address):
            continue
        found.setdefault(endpoint, []).append(address)
        answer = http.get(address)
        if answer.status == 204:  # a live part with nothing new to say is no page
            found[endpoint].remove(address)
        elif answer.status != 200:
            broken.append(f"{address}: {answer.status}")
        elif "text/html" in answer.headers["content-type"]:
            waiting += [urljoin(address, unescape(link)) for link in LINK.findall(answer.text())]
    return found, broken


def _wanted(known: list[str], address: str) -> bool:
    """Whether the address adds something: the first of its route, or the first with another set of parameters."""
    shapes = {_shape(other) for other in known}
    return len(known) < EXAMPLES_MAX and _shape(address) not in shapes


def _shape(address: str) -> frozenset[str]:
    return frozenset(name for name, _ in parse_qsl(urlsplit(address).query))
