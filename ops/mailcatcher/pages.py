"""The pages that show received mails, and the same as JSON for commands and tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, send_file

from ops.mailcatcher.store import Mail, Store

SHOWN_MAX = 200
PAGE_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'"
MAIL_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"  # a mail's own HTML may style itself and nothing else


def create_app(store: Store) -> Flask:
    """The web side of the mail catcher."""
    app = Flask(__name__, static_folder=None)

    def found(mail_id: str) -> Mail:
        mail = store.get(mail_id)
        return mail if mail is not None else abort(404)

    @app.get("/")
    def index() -> str:
        ids = store.ids()
        return render_template("index.html", mails=[found(mail_id) for mail_id in ids[:SHOWN_MAX]], total=len(ids))

    @app.get("/mails/<mail_id>")
    def show(mail_id: str) -> str:
        return render_template("mail.html", mail=found(mail_id))

    @app.get("/mails/<mail_id>/html")
    def html(mail_id: str) -> Response:
        return Response(found(mail_id).html, headers={"Content-Security-Policy": MAIL_POLICY})

    @app.get("/mails/<mail_id>/source")
    def source(mail_id: str) -> Response:
        return Response(store.raw(mail_id) or abort(404), mimetype="text/plain")

    @app.get("/mails/<mail_id>/attachments/<int:number>")
    def attachment(mail_id: str, number: int) -> Response:
        files = found(mail_id).attachments
        if number >= len(files):
            abort(404)
        file = files[number]
        return send_file(io.BytesIO(file.content), mimetype=file.content_type, download_name=file.name)

    @app.get("/mails.json")
    def as_json() -> Response:
        return jsonify([summary(found(mail_id)) for mail_id in store.ids()[:SHOWN_MAX]])

    @app.get("/style.css")
    def style() -> Response:
        return send_file(Path(__file__).with_name("mail.css"))

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def summary(mail: Mail) -> dict[str, Any]:
    """A mail without the bytes of its attachments."""
    return {
        "id": mail.id,
        "from": mail.sender,
        "to": mail.recipients,
        "subject": mail.subject,
        "date": mail.date.isoformat() if mail.date else None,
        "text": mail.text,
        "attachments": [{"name": file.name, "content_type": file.content_type, "bytes": len(file.content)} for file in mail.attachments],
    }
