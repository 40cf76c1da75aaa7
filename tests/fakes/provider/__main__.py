"""`python -m tests.fakes.provider --port 0 --data FILE.sqlite [--webhook-url URL] [--webhook-secret whsec_…]`."""

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

from werkzeug.serving import WSGIRequestHandler, make_server

from tests.fakes.provider.app import create_app


class Handler(WSGIRequestHandler):
    """Keeps connections open, as the provider does, and does not write a line for each request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def main() -> None:
    """Serve until SIGTERM or Ctrl-C. The first line of output is JSON with the address, once requests are taken."""
    parser = argparse.ArgumentParser(prog="provider", description="A payment provider for tests and demos. No real money.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--data", type=Path, required=True, help="SQLite file that records everything")
    parser.add_argument("--webhook-url", default=None, help="where events are delivered")
    parser.add_argument("--webhook-secret", default="whsec_local", help="what they are signed with")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="provider: %(message)s")
    app = create_app(options.data, options.webhook_url, options.webhook_secret)
    server = make_server(options.host, options.port, app, threaded=True, request_handler=Handler)

    def stop(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    print(json.dumps({"url": f"http://{options.host}:{server.server_port}"}), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        provider = app.extensions["provider"]
        provider.events.stop()
        provider.store.close()


if __name__ == "__main__":
    main()
