"""A running provider for the tests of payments, and the real Stripe library speaking to it."""

from collections.abc import Iterator

import pytest
from flask import Flask

from core import config
from core.payments.gateways.stripe import StripeGateway
from tests.fakes.fixtures import ProviderFake, provider_fake
from tests.payments.billing import bare_app, charging_at


@pytest.fixture(scope="session")
def app(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The core on a bare application, as the workers have it: payments need no pages."""
    return bare_app(database_url, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def committed_app(app: Flask, committed_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The same on a database of the module's own, where everything is really committed."""
    yield bare_app(committed_database_url, tmp_path_factory.mktemp("home"))
    config.use(app.config["SETTINGS"])


@pytest.fixture(scope="session")
def running_provider() -> Iterator[ProviderFake]:
    with provider_fake() as fake:
        yield fake


@pytest.fixture
def provider(running_provider: ProviderFake) -> Iterator[ProviderFake]:
    """The provider, with nothing going wrong and nobody listening to its events."""
    yield running_provider
    running_provider.heal()
    running_provider.webhooks(url=None, dup=1, drop=False, delay=0, shuffle=False)


@pytest.fixture(scope="session")
def gateway(running_provider: ProviderFake) -> StripeGateway:
    return StripeGateway(
        running_provider.api_key,
        api_base=running_provider.url,
        webhook_secrets=("whsec_next", running_provider.webhook_secret),
        answer_seconds=5,
    )


@pytest.fixture
def charging(provider: ProviderFake, app: Flask) -> Iterator[ProviderFake]:
    """The provider, with this process's product charging there."""
    with charging_at(provider):
        yield provider
