"""What frames a page: brand, navigation, account, member; and the reader's theme and density, kept in cookies."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Blueprint, Flask, current_app, redirect, request
from werkzeug.wrappers import Response

bp = Blueprint("shell", __name__)

THEMES = ("light", "dark")
DENSITIES = ("comfortable", "compact")
COOKIE_SECONDS = 31_536_000


@dataclass(frozen=True, slots=True)
class NavItem:
    """One entry of the rail. `count` stands at its right ("175", "1 overdue"); `bad` colours it, for what is overdue only."""

    key: str
    label: str
    href: str
    icon: str
    count: str = ""
    bad: bool = False


@dataclass(frozen=True, slots=True)
class NavGroup:
    """Entries under a small heading; the portal uses one group without a title."""

    items: tuple[NavItem, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Shell:
    """Everything a layout shows around a page. A site gives it to its templates as `shell`."""

    brand: str
    home_href: str
    groups: tuple[NavGroup, ...] = ()
    account_name: str = ""
    account_detail: str = ""
    member_name: str = ""
    member_detail: str = ""
    sign_out_action: str = ""
    help_href: str = ""
    search_href: str = ""
    test_mode: bool = False
    footer: str = ""


def init_app(app: Flask) -> None:
    """Register the preferences form and give templates `theme` and `density`."""
    app.register_blueprint(bp)
    app.context_processor(lambda: {"theme": _choice("theme", THEMES), "density": _choice("density", DENSITIES), "shell": default_shell()})


def default_shell() -> Shell:
    """The frame of pages that stand before or outside a site: sign-in, errors."""
    seller = current_app.config["SETTINGS"].seller
    return Shell(seller.brand, "/", footer=", ".join((seller.legal_name, *seller.address_lines[:2])))


@bp.post("/preferences")
def save_preferences() -> Response:
    """Keep the chosen theme and density in cookies, then return to the page the form was on."""
    response = redirect(same_site_path(request.form.get("next", "/")), 303)
    for name, allowed in (("theme", THEMES), ("density", DENSITIES)):
        if name in request.form:
            value = request.form[name] if request.form[name] in allowed else ""
            response.set_cookie(
                name, value, max_age=COOKIE_SECONDS if value else 0, secure=request.is_secure, httponly=True, samesite="Lax"
            )
    return response


def _choice(name: str, allowed: tuple[str, ...]) -> str:
    value = request.cookies.get(name, "")
    return value if value in allowed else ""


def same_site_path(target: str) -> str:
    """`target` if it is a path on this site, else "/": an address from outside never leads a person away (open redirect)."""
    parts = urlsplit(target)
    safe = not parts.scheme and not parts.netloc and target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if safe and target.isprintable() else "/"
