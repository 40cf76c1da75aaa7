"""Signing in to the finance site: password, then the second factor, which every operator must have."""

from __future__ import annotations

import segno
from flask import g, request
from flask_login import login_required
from werkzeug.wrappers import Response

from admin import blueprint
from core import clock
from core.db import transaction
from core.errors import RateLimited
from core.identity import encryption, sessions, totp, users
from web import auth
from web.htmx import page, redirect_to
from web.shell import same_site_path

WRONG = "E-mail address or password is wrong."
WRONG_CODE = "This code is not right, or it was used already. Wait for the next one."


@blueprint.get("/sign-in")
def sign_in() -> Response:
    """The form; whoever is signed in already goes on."""
    return redirect_to(_destination()) if g.get("login") is not None else _form()


@blueprint.post("/sign-in")
def begin_session() -> Response:
    """Check e-mail and password of an operator; the second factor comes next."""
    try:
        with transaction() as session:
            user = users.check_password(
                session,
                email=request.form.get("email", ""),
                password=request.form.get("password", ""),
                ip=request.remote_addr or "",
                at=clock.now(),
            )
            token = auth.sign_in(user, site=sessions.ADMIN)[1] if user and user.operator_role else None
    except RateLimited as error:
        return _form({"email": error.message}, status=429)
    if token is None:
        return _form({"email": WRONG}, status=422)
    return auth.remember(redirect_to(f"/admin/second-factor?next={_destination()}"), token, site=sessions.ADMIN)


@blueprint.get("/second-factor")
@login_required
def second_factor() -> Response:
    """Ask for a code, or let an operator who has none yet enrol an authenticator app."""
    return _code_form()


@blueprint.post("/second-factor")
@login_required
def confirm_second_factor() -> Response:
    """Check the code; a right one begins a new sign-in that carries the factor."""
    code = request.form.get("code", "").replace(" ", "")
    try:
        with transaction() as session:
            if g.user.totp_secret:
                right = totp.check(session, g.user, code, at=clock.now())
            else:
                secret = _opened(request.form.get("enrolment", ""))
                right = secret is not None and totp.enroll(session, g.user, secret=secret, code=code, actor=g.actor, at=clock.now())
            token = auth.sign_in(g.user, site=sessions.ADMIN, second_factor=True)[1] if right else None
    except RateLimited as error:
        return _code_form({"code": error.message}, status=429)
    if token is None:
        return _code_form({"code": WRONG_CODE}, status=422)
    return auth.remember(redirect_to(_destination()), token, site=sessions.ADMIN)


@blueprint.post("/sign-out")
@login_required
def end_session() -> Response:
    """End the sign-in itself, not only its cookie."""
    with transaction() as session:
        sessions.end(session, g.login, actor=g.actor, at=clock.now())
    return auth.forget(redirect_to("/admin/sign-in"), site=sessions.ADMIN)


def _form(errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    return page(
        "admin/session/sign_in.html",
        status=status,
        errors=errors or {},
        email=request.form.get("email", ""),
        target=_destination(),
        ended="ended" in request.args,
    )


def _code_form(errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    if g.user.totp_secret:
        return page("admin/session/second_factor.html", status=status, errors=errors or {}, target=_destination())
    secret = _opened(request.form.get("enrolment", "")) or totp.new_secret()
    picture = segno.make(totp.provisioning_uri(secret, g.user.email), error="m").svg_data_uri(scale=4, border=2, dark="#000", light="#fff")
    return page(
        "admin/session/enrolment.html",
        status=status,
        errors=errors or {},
        target=_destination(),
        picture=picture,
        secret=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        enrolment=encryption.encrypt(secret, place=_place()),
    )


def _opened(enrolment: str) -> str | None:
    """The secret offered on the enrolment form, which only this sign-in can bring back."""
    try:
        return encryption.decrypt(enrolment, place=_place())
    except encryption.NotDecryptable:
        return None


def _place() -> str:
    return f"enrolment:{g.login.id}"


def _destination() -> str:
    target = same_site_path(request.values.get("next", "/admin/"))
    return target if target.startswith("/admin/") and not target.startswith(("/admin/sign-", "/admin/second-factor")) else "/admin/"
