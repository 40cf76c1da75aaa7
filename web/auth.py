"""Who is at the keyboard: sign-ins kept as rows, one cookie a site, Flask-Login over them, permissions at the view.

A view says `@requires("subscription.change")` and finds `g.user`, `g.actor` and, on the portal, `g.organization` and `g.role`.
A stranger to an organization gets 404; a member without the permission 403; nobody is sent to the sign-in page of their site.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlencode

from flask import Flask, Response, abort, current_app, g, make_response, redirect, request
from flask_login import LoginManager, UserMixin, current_user
from werkzeug.wrappers import Response as AnyResponse

from core import clock
from core.audit import Actor
from core.db import db, transaction
from core.errors import Forbidden, NotFound
from core.identity import permissions, sessions, users
from core.identity.models import LoginSession, User
from core.identity.queries import organization
from web.htmx import wants_fragment
from web.shell import same_site_path

P = ParamSpec("P")
R = TypeVar("R")

SITES = (sessions.PORTAL, sessions.ADMIN)
login_manager = LoginManager()


class Visitor(UserMixin):
    """Flask-Login's view of the signed-in person: `current_user` in templates."""

    def __init__(self, user: User) -> None:
        self.id = str(user.id)
        self.email = user.email
        self.name = user.name


def init_app(app: Flask) -> None:
    """Find out who is there before each request of a site."""
    login_manager.session_protection = None  # sign-ins are rows; there is no client-side session to protect
    login_manager.init_app(app)
    login_manager.request_loader(lambda _request: Visitor(g.user) if g.get("user") else None)
    login_manager.unauthorized_handler(to_sign_in)
    app.before_request(_identify)
    app.jinja_env.globals["may"] = may


def requires(action: str) -> Callable[[Callable[P, R]], Callable[P, R | AnyResponse]]:
    """Let only those through whose role may do `action` (core.identity.permissions); a misspelt action fails at import."""
    permissions.can("", action)

    def decorate(view: Callable[P, R]) -> Callable[P, R | AnyResponse]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | AnyResponse:
            if not current_user.is_authenticated:
                return current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
            if g.site == sessions.PORTAL and g.get("organization") is None:
                raise NotFound("There is no such account.")
            if g.site == sessions.ADMIN and g.login.mfa_at is None:
                return redirect("/admin/second-factor", 303)
            if not permissions.can(g.role, action):
                raise Forbidden(f"Your role ({g.role.replace('_', ' ')}) may not do this.")
            return view(*args, **kwargs)

        guarded.permission = action  # type: ignore[attr-defined]
        return guarded

    return decorate


def may(action: str) -> bool:
    """Whether the signed-in person may do `action`; templates disable what one may not, views refuse it."""
    return permissions.can(g.get("role", ""), action)


def site_of(path: str) -> str | None:
    """The site a path belongs to, None outside both."""
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    return first if first in SITES else None


def sign_in(user: User, *, site: str, second_factor: bool = False) -> tuple[LoginSession, str]:
    """Begin a new sign-in of `user` in the open transaction, ending the one this browser had; `remember` its token in the answer."""
    at, session = clock.now(), db.session()
    actor = actor_of(user, site)
    if g.get("login") is not None:
        sessions.end(session, g.login, actor=actor, at=at)
    return sessions.begin(
        session,
        user,
        site=site,
        at=at,
        organization_id=users.first_organization_id(session, user.id) if site == sessions.PORTAL else None,
        mfa_at=at if second_factor else None,
        ip=request.remote_addr or "",
        user_agent=request.user_agent.string,
    )


def remember(response: AnyResponse, token: str, *, site: str) -> AnyResponse:
    """Set the site's cookie: host-only and Secure over TLS, never readable by scripts, not sent with cross-site requests."""
    response.set_cookie(
        cookie_name(site),
        token,
        max_age=int(sessions.LIFE_MAX[site].total_seconds()),
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
        path="/",
    )
    return response


def forget(response: AnyResponse, *, site: str) -> AnyResponse:
    """Take the site's cookie back."""
    response.delete_cookie(cookie_name(site), secure=request.is_secure, httponly=True, samesite="Lax", path="/")
    return response


def cookie_name(site: str) -> str:
    """`__Host-` binds the cookie to this host and TLS; browsers refuse that name over plain HTTP."""
    return f"__Host-vv_{site}" if request.is_secure else f"vv_{site}"


def actor_of(user: User, site: str) -> Actor:
    """The person as the audit trail names them."""
    kind = "operator" if site == sessions.ADMIN else "user"
    return Actor(kind, str(user.id), user.email, g.get("request_id", ""), request.remote_addr or "")


def to_sign_in() -> AnyResponse:
    """To the sign-in page of the site, and back afterwards; a portal member knows no admin pages, so there it is 404."""
    site = g.get("site") or sessions.PORTAL
    if site == sessions.ADMIN and live_session(sessions.PORTAL) is not None:
        abort(404)
    target = f"/{site}/sign-in?{urlencode({'next': _way_back(), 'ended': '1'} if _was_signed_in(site) else {'next': _way_back()})}"
    if wants_fragment():
        response: Response = make_response("", 401)
        response.headers["HX-Redirect"] = target
        return response
    return redirect(target, 303)


def live_session(site: str) -> LoginSession | None:
    """The live sign-in behind this request's cookie of `site`."""
    token = request.cookies.get(cookie_name(site), "")
    return sessions.resolve(db.session(), token, site=site, at=clock.now()) if token else None


def _was_signed_in(site: str) -> bool:
    return bool(request.cookies.get(cookie_name(site)))


def _way_back() -> str:
    if request.method == "GET" and not wants_fragment():
        return same_site_path(request.full_path.rstrip("?"))
    referrer = request.referrer or ""
    return same_site_path("/" + referrer.partition("://")[2].partition("/")[2]) if referrer.startswith(request.host_url) else "/"


def _identify() -> None:
    g.site = site_of(request.path)
    if g.site is None:
        return
    row = live_session(g.site)
    if row is not None and sessions.needs_touch(row, at=clock.now()):
        with transaction() as session:
            sessions.touch(session, row.id, at=clock.now())
        row = live_session(g.site)
    if row is None:
        return
    g.login, g.user, g.actor = row, row.user, actor_of(row.user, g.site)
    if g.site == sessions.ADMIN:
        g.role = row.user.operator_role or ""
    elif row.organization_id is not None:
        _enter_organization(row)


def _enter_organization(row: LoginSession) -> None:
    """Load the organization and the member's role in it, read anew each time so that a change of role acts at once."""
    assert row.organization_id is not None
    try:
        g.role = users.membership(db.session(), row.organization_id, row.user_id).role
    except NotFound:
        g.role = ""
        return
    g.organization = organization(db.session(), row.organization_id)
