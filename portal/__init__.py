"""The customer's site under /portal: one module for each family of pages."""

from flask import Blueprint

blueprint = Blueprint("portal", __name__, url_prefix="/portal")

from portal import session  # noqa: E402, F401
