"""The web process: `granian --interface rsgi wsgi:serve --factory`; any WSGI server takes `create_app`. Nothing runs at import."""

from __future__ import annotations

from pathlib import Path

import dramatiq.broker
from flask import Flask, Response, jsonify, redirect
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as AnyResponse

import admin
import api
import portal
from api import usage
from api.drop_in import front
from api.usage_singles import UsageSingles
from core import config, jobs, logs, schema
from core.config import ConfigurationError, Settings
from core.db import db, engine_options
from core.identity.keys import RecentKeys
from core.metering import memory
from core.metering.lines import Prompt
from core.reader import Reader
from web import assets, auth, csp, csrf, errors, filters, htmx, monitoring, requests, shell
from web.gateway import Gateway

ROOT = Path(__file__).resolve().parent
FORM_BYTES_MAX = 1024 * 1024


def create_app(settings: Settings | None = None) -> Flask:
    """The whole web product: both sites and the API, on `settings` (default: the environment).

    Raises ConfigurationError naming every setting that is missing or wrong.
    """
    settings = config.use(settings or Settings.from_env())
    problems = settings.check()
    if problems:
        raise ConfigurationError(problems)
    logs.configure()
    app = Flask("wsgi", root_path=str(ROOT), static_folder=str(ROOT / "static"), template_folder=str(ROOT / "templates"))
    app.config.update(
        SETTINGS=settings,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings.web_threads),
        MAX_CONTENT_LENGTH=max(FORM_BYTES_MAX, settings.usage_request_bytes_max),
        MAX_FORM_MEMORY_SIZE=FORM_BYTES_MAX,
        MAX_FORM_PARTS=1_000,
    )
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]
    if dramatiq.broker.global_broker is None:
        jobs.connect(settings.redis_url)
    db.init_app(app)
    app.extensions["reader"] = Reader(settings.database_url, connections=settings.web_threads, kind=Prompt)
    app.extensions["recent_keys"] = RecentKeys()
    for part in (requests, csp, htmx, filters, assets, shell, errors, auth, csrf):
        part.init_app(app)
    _add_sites(app)
    front.install(app, usage.install(app, settings))
    _add_probes(app)
    monitoring.init_app(app, settings)
    return app


def serve() -> Gateway:
    """create_app() for a process of granian, whose memory is settled once everything is loaded; usage of one event is answered in front."""
    app = create_app()
    settings = app.config["SETTINGS"]
    front = UsageSingles(app.extensions["usage_endpoint"], app.extensions.get("count_answer"))
    memory.settle()
    return Gateway(app, threads=settings.web_threads, front=front)


def _add_sites(app: Flask) -> None:
    for site in (portal, admin, api):
        app.register_blueprint(site.blueprint)
    app.add_url_rule("/", "home", lambda: redirect("/portal/sign-in", 303))


def _add_probes(app: Flask) -> None:
    app.add_url_rule("/healthz", "healthz", lambda: jsonify(status="ok"))
    app.add_url_rule("/readyz", "readyz", _readiness)


def _readiness() -> tuple[Response, int] | AnyResponse:
    """200 when the database answers and its schema is this code's; the queue may be away, since sweeps find what it loses."""
    try:
        revision = db.session.execute(text("SELECT version_num FROM alembic_version")).scalar()
        needed = schema.newest_revision()
        database = "ok" if revision == needed else f"schema is at {revision}, this code needs {needed}"
    except SQLAlchemyError:
        database = "not answering"
    ready = database == "ok"
    return jsonify(status="ready" if ready else "not ready", database=database), 200 if ready else 503
