"""The overview: is anything wrong, what has been spent, where will it end, what is it made of, when is it paid."""

from __future__ import annotations

from werkzeug.wrappers import Response

from portal import blueprint
from web.auth import requires
from web.htmx import page


@blueprint.get("/")
@requires("overview.view")
def overview() -> Response:
    """The whole page."""
    return page("portal/overview/index.html", current="overview")
