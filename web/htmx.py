"""One view answers a browser with a page and htmx with a part of it."""

from __future__ import annotations

from typing import cast

from flask import Flask, Response, make_response, render_template, request
from htmx_flask import Htmx
from htmx_flask.requests import HtmxAwareRequest
from werkzeug.wrappers import Response as AnyResponse


def init_app(app: Flask) -> None:
    """Teach requests about htmx's headers (`request.htmx`)."""
    Htmx(app)


def wants_fragment() -> bool:
    """Whether the caller swaps a part: history-restore and boosted requests are from htmx too, yet need the whole page."""
    htmx = cast(HtmxAwareRequest, request).htmx
    return bool(htmx) and not htmx.history_restore_request and not htmx.boosted


def page(template: str, *, partial: str | None = None, status: int = 200, announce: str = "", **context: object) -> Response:
    """Render `template`, or only `partial` when htmx asks for a part.

    `announce` is read out through the page's live region. The answer varies by HX-Request and is never stored,
    so Back and a copied address always show a whole, current page.
    """
    fragment = partial is not None and wants_fragment()
    body = render_template(partial if fragment and partial else template, **context)
    if fragment and announce:
        body += render_template("components/_announcement.html", message=announce)
    response = make_response(body, status)
    response.headers["Cache-Control"] = "private, no-store"
    response.vary.add("HX-Request")
    return response


def redirect_to(location: str) -> AnyResponse:
    """303 to `location`; htmx is told to load it as a page instead of swapping it into a part."""
    response = make_response("", 204 if wants_fragment() else 303)
    response.headers["HX-Redirect" if wants_fragment() else "Location"] = location
    response.headers["Cache-Control"] = "private, no-store"
    response.vary.add("HX-Request")
    return response
