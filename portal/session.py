"""Signing in to the customer's site, out of it, and choosing among one's organizations."""

from __future__ import annotations

from flask import g, request
from flask_login import login_required
from werkzeug.wrappers import Response

from core import clock
from core.db import db, transaction
from core.errors import NotFound, RateLimited
from core.identity import queries, sessions, users
from portal import blueprint
from web import auth
from web.htmx import page, redirect_to
from web.shell import same_site_path

WRONG = "E-mail address or password is wrong."


@blueprint.get("/sign-in")
def sign_in() -> Response:
    """The form; whoever is signed in already goes on."""
    if g.get("login") is not None:
        return redirect_to(same_site_path(request.args.get("next", "/portal/")))
    return _form()


@blueprint.post("/sign-in")
def begin_session() -> Response:
    """Check e-mail and password; unknown, disabled and wrong read the same."""
    try:
        with transaction() as session:
            user = users.check_password(
                session,
                email=request.form.get("email", ""),
                password=request.form.get("password", ""),
                ip=request.remote_addr or "",
                at=clock.now(),
            )
            token = auth.sign_in(user, site=sessions.PORTAL)[1] if user else None
    except RateLimited as error:
        return _form({"email": error.message}, status=429)
    if token is None:
        return _form({"email": WRONG}, status=422)
    return auth.remember(redirect_to(_destination()), token, site=sessions.PORTAL)


@blueprint.post("/sign-out")
@login_required
def end_session() -> Response:
    """End the sign-in itself, not only its cookie."""
    with transaction() as session:
        sessions.end(session, g.login, actor=g.actor, at=clock.now())
    return auth.forget(redirect_to("/portal/sign-in"), site=sessions.PORTAL)


@blueprint.post("/organization")
@login_required
def choose_organization() -> Response:
    """Look at another of one's organizations; any other is 404."""
    wanted = queries.as_uuid(request.form.get("organization", ""))
    if wanted is None:
        raise NotFound("There is no such account.")
    users.membership(db.session(), wanted, g.user.id)
    with transaction() as session:
        sessions.choose_organization(session, g.login, wanted)
    return redirect_to("/portal/")


def _form(errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    return page(
        "portal/session/sign_in.html",
        status=status,
        errors=errors or {},
        email=request.form.get("email", ""),
        target=_destination(),
        ended="ended" in request.args,
    )


def _destination() -> str:
    target = same_site_path(request.values.get("next", "/portal/"))
    return target if target.startswith("/portal/") and not target.startswith("/portal/sign-") else "/portal/"
