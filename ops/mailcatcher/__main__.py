"""`python -m ops.mailcatcher --smtp-port 8026 --web-port 8025 --folder var/mail`."""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from werkzeug.serving import make_server

from ops.mailcatcher.pages import create_app
from ops.mailcatcher.store import Store

MAIL_BYTES_MAX = 32 * 1024 * 1024


class Keep:
    """Answers 250 to a mail only once it is on the disk."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 - aiosmtpd's name
        """Store one mail."""
        content: Any = envelope.content
        self.store.add(content)
        return "250 Kept"


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m ops.mailcatcher", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--smtp-port", type=int, required=True)
    parser.add_argument("--web-port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    store = Store(given.folder)
    smtp = Controller(Keep(store), hostname=given.host, port=given.smtp_port, data_size_limit=MAIL_BYTES_MAX)
    web = make_server(given.host, given.web_port, create_app(store), threaded=True)

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's signature
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    smtp.start()
    try:
        web.serve_forever()
    finally:
        smtp.stop()
        web.server_close()


if __name__ == "__main__":
    main()
