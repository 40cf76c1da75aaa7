"""Which gateway speaks for a provider's name, made from the process's settings."""

from __future__ import annotations

from functools import lru_cache

from core import config
from core.errors import Conflict, NotFound
from core.payments.gateways.base import Gateway
from core.payments.gateways.manual import ManualGateway
from core.payments.gateways.stripe import StripeGateway

STRIPE = StripeGateway.name
MANUAL = ManualGateway.name


def gateway(name: str) -> Gateway:
    """The gateway called `name`; NotFound for an unknown one, Conflict for one that is not set up here."""
    if name == MANUAL:
        return _manual()
    if name != STRIPE:
        raise NotFound(f'There is no payment provider "{name[:32]}".')
    settings = config.current()
    if not settings.stripe_api_key:
        raise Conflict("No card payments are set up here: STRIPE_API_KEY is missing.", code="provider_not_configured")
    return _stripe(settings.stripe_api_key, settings.stripe_api_base, settings.stripe_webhook_secrets)


@lru_cache(maxsize=1)
def _manual() -> ManualGateway:
    return ManualGateway()


@lru_cache(maxsize=4)
def _stripe(api_key: str, api_base: str, webhook_secrets: tuple[str, ...]) -> StripeGateway:
    return StripeGateway(api_key, api_base=api_base, webhook_secrets=webhook_secrets)
