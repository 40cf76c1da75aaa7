"""A running provider for the tests of payments, and the real Stripe library speaking to it."""

from collections.abc import Iterator

import pytest

from core.payments.gateways.stripe import StripeGateway
from tests.fakes.fixtures import ProviderFake, provider_fake


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
