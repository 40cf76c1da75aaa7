"""The finance team's site under /admin: one module for each family of pages."""

from flask import Blueprint

blueprint = Blueprint("admin", __name__, url_prefix="/admin")

from admin import session  # noqa: E402, F401
