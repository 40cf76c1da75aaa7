"""Cross-site request forgery: every unsafe request of a page must come from our own page and carry its token.

Fetch metadata and Origin refuse other sites' requests; the token in a hidden field proves the form was ours. Signed in, the
token hangs on the sign-in; before that on a cookie of its own, which also protects the sign-in form. The JSON API has no
cookies, so it needs none of this.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from flask import Flask, Response, current_app, g, request
from werkzeug.wrappers import Response as AnyResponse

from core.errors import Forbidden
from web.auth import SITES, live_session, to_sign_in

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
FIELD = "csrf_token"
HEADER = "X-CSRF-Token"
COOKIE = "vv_form"
EXEMPT_PREFIX = "/api/"


def init_app(app: Flask) -> None:
    """Check every unsafe request outside the API; templates get `csrf_token()`."""
    app.before_request(_check)
    app.after_request(_set_cookie)
    app.jinja_env.globals["csrf_token"] = csrf_token


def csrf_token() -> str:
    """The token for a form on the page being rendered."""
    login = g.get("login")
    if login is not None:
        return token_for(login.csrf_secret)
    if "form_cookie" not in g:
        g.form_cookie = request.cookies.get(COOKIE) or secrets.token_urlsafe(24)
    return token_for(g.form_cookie)


def token_for(secret: str) -> str:
    """The token that belongs to a sign-in's `csrf_secret` or to the form cookie."""
    key = current_app.config["SETTINGS"].secret_key.encode()
    return hmac.new(key, f"csrf:{secret}".encode(), hashlib.sha256).hexdigest()


def _check() -> AnyResponse | None:
    if request.method in SAFE or request.path.startswith(EXEMPT_PREFIX) or request.url_rule is None:
        return None
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("The request came from another site.", code="cross_site")
    origin = request.headers.get("Origin")
    if origin not in (None, "null") and origin != request.host_url.rstrip("/"):
        raise Forbidden("The request came from another site.", code="cross_site")
    given = request.headers.get(HEADER) or request.form.get(FIELD, "")
    if any(hmac.compare_digest(token_for(secret), given) for secret in _secrets()):
        return None
    if g.get("site") and g.get("login") is None and not request.path.endswith("/sign-in"):
        return to_sign_in()
    raise Forbidden("The form is no longer valid. Load the page again and repeat.", code="csrf")


def _secrets() -> list[str]:
    login = g.get("login")
    if login is not None:
        return [login.csrf_secret]
    own = [request.cookies[COOKIE]] if request.cookies.get(COOKIE) else []
    if g.get("site"):
        return own
    return own + [row.csrf_secret for row in (live_session(site) for site in SITES) if row is not None]


def _set_cookie(response: Response) -> Response:
    if g.get("form_cookie") and request.cookies.get(COOKIE) != g.form_cookie:
        response.set_cookie(COOKIE, g.form_cookie, secure=request.is_secure, httponly=True, samesite="Lax", path="/")
    return response
