"""Static files: component stylesheets and scripts joined into one of each, addressed by content, cached for a year.

The parts stay small readable files; there is no build step. A changed part changes the address.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flask import Blueprint, Flask, Response, abort, current_app, request, url_for

bp = Blueprint("assets", __name__)

CSS = ("fonts", "tokens", "base", "layout", "controls", "tables", "statement", "parts", "states", "admin", "portal", "charts", "utilities")
JS = ("dialog", "focus", "copy", "refresh", "errors", "keys", "charts")
YEAR_SECONDS = 31_536_000


@dataclass(frozen=True, slots=True)
class Bundle:
    """One joined file: its bytes plain and gzipped, its media type, its digest."""

    plain: bytes
    gzipped: bytes
    mimetype: str
    digest: str


def init_app(app: Flask) -> None:
    """Serve the bundles and give templates `asset(name)`, the address of a static file with its digest."""
    app.register_blueprint(bp)
    app.jinja_env.globals["asset"] = asset
    app.after_request(_cache_addressed)


def asset(name: str) -> str:
    """The address of `static/<name>`, or of the joined "app.css" / "app.js"; it changes whenever the content does."""
    folder = str(current_app.static_folder)
    if name in ("app.css", "app.js"):
        return url_for("assets.bundle", name=name, v=_bundle(folder, name).digest)
    return url_for("static", filename=name, v=_digest(folder, name))


@bp.get("/static/<any('app.css', 'app.js'):name>")
def bundle(name: str) -> Response:
    """The joined stylesheet or script."""
    found = _bundle(str(current_app.static_folder), name)
    packed = request.accept_encodings["gzip"] > 0
    response = Response(found.gzipped if packed else found.plain, mimetype=found.mimetype)
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.vary.add("Accept-Encoding")
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(found.digest)
    response.make_conditional(request)
    return response


def _cache_addressed(response: Response) -> Response:
    if request.endpoint in ("static", "assets.bundle") and "v" in request.args and response.status_code == 200:
        response.headers["Cache-Control"] = f"public, max-age={YEAR_SECONDS}, immutable"
    return response


@lru_cache(maxsize=8)
def _bundle(folder: str, name: str) -> Bundle:
    kind, parts = ("css", CSS) if name == "app.css" else ("js", JS)
    plain = b"\n".join((Path(folder) / kind / f"{part}.{kind}").read_bytes() for part in parts)
    mimetype = "text/css" if kind == "css" else "text/javascript"
    return Bundle(plain, gzip.compress(plain, mtime=0), mimetype, hashlib.sha256(plain).hexdigest()[:16])


@lru_cache(maxsize=128)
def _digest(folder: str, name: str) -> str:
    path = Path(folder) / name
    if not path.is_file():
        abort(500, f"static file {name} does not exist")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
