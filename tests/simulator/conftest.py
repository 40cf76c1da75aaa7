"""These tests need the core alone."""

import pytest
from flask import Flask

from tests.bare import bare_app

__all__ = ["bare_app"]


@pytest.fixture(scope="session")
def app(bare_app: Flask) -> Flask:
    """The core without its sites."""
    return bare_app
