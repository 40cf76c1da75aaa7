"""Settings: read once from the environment, typed, checked; a missing or weak secret in production refuses to start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

WEAK_SECRET = "development-only-secret-not-for-production"  # noqa: S105 - refused in production by check()
SECRET_LENGTH_MIN = 32


class ConfigurationError(Exception):
    """One or more settings are missing or wrong; `problems` holds a sentence for each, naming the variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Seller:
    """The legal entity that issues invoices (Directive 2006/112/EC art. 226 asks for all of it on every invoice)."""

    legal_name: str = "Northlight AI GmbH"
    address_lines: tuple[str, ...] = ("Torstraße 140", "10119 Berlin", "Germany")
    country: str = "DE"
    vat_id: str = "DE811907980"
    brand: str = "Northlight AI"
    """What customers call the seller: on pages and in mail."""
    register_entry: str = "Amtsgericht Charlottenburg HRB 218842 B"
    managing_directors: str = "Mara Lindqvist"
    email: str = "billing@northlight.example"
    iban: str = "DE89370400440532013000"
    bic: str = "COBADEFFXXX"
    bank_name: str = "Commerzbank"
    series: str = "INV"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the running product can be told from outside. Durations are in the unit of the name's suffix."""

    environment: str = "development"
    home: Path = Path("var")
    database_url: str = ""
    redis_url: str = "redis://127.0.0.1:6379/0"
    smtp_url: str = "smtp://127.0.0.1:1025"
    mail_from: str = "Northlight AI Billing <billing@northlight.example>"
    public_url: str = "http://127.0.0.1:8000"
    secret_key: str = WEAK_SECRET
    api_key_pepper: str = WEAK_SECRET
    encryption_key: str = WEAK_SECRET
    stripe_api_key: str = ""
    stripe_publishable_key: str = ""
    stripe_api_base: str = "https://api.stripe.com"
    stripe_webhook_secrets: tuple[str, ...] = ()
    seller: Seller = field(default_factory=Seller)
    adjustment_days: int = 45
    payment_terms_days: int = 14
    invoice_grace_seconds: int = 3600
    usage_window_past_days: int = 35
    usage_window_future_seconds: int = 300
    usage_request_bytes_max: int = 4 * 1024 * 1024
    usage_events_per_request_max: int = 10_000
    usage_backlog_events_max: int = 5_000_000
    usage_flush_seconds: Decimal = Decimal("0.15")
    usage_dedup_memory_mib: int = 2048
    usage_rate_per_second: int = 50_000
    web_workers: int = 1
    web_threads: int = 16
    trusted_proxies: int = 0

    @property
    def production(self) -> bool:
        """True where real money moves: weak or missing secrets are refused."""
        return self.environment == "production"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read and check the settings; raises ConfigurationError naming each variable that is missing or wrong."""
        env = os.environ if env is None else env
        problems: list[str] = []
        values: dict[str, Any] = {
            name: _read(variable, convert, env, problems) for name, (variable, convert) in VARIABLES.items() if variable in env
        }
        if problems:
            raise ConfigurationError(problems)
        settings = cls(**values, seller=_seller(env))
        problems = settings.check()
        if problems:
            raise ConfigurationError(problems)
        return settings

    def check(self) -> list[str]:
        """A sentence for each setting that this environment cannot run with."""
        problems = []
        if self.environment not in {"development", "test", "production"}:
            problems.append("VALUEVERSE_ENV must be development, test or production")
        if not self.database_url:
            problems.append("DATABASE_URL is missing (postgresql://user:password@host/database)")
        elif not self.database_url.startswith("postgresql"):
            problems.append("DATABASE_URL must be a postgresql:// address")
        if self.production:
            secrets = {"SECRET_KEY": self.secret_key, "API_KEY_PEPPER": self.api_key_pepper, "ENCRYPTION_KEY": self.encryption_key}
            problems += [
                f"{name} must be at least {SECRET_LENGTH_MIN} characters of your own in production"
                for name, value in secrets.items()
                if value == WEAK_SECRET or len(value) < SECRET_LENGTH_MIN
            ]
            if not self.stripe_api_key:
                problems.append("STRIPE_API_KEY is missing")
            if not self.stripe_webhook_secrets:
                problems.append("STRIPE_WEBHOOK_SECRETS is missing (comma-separated whsec_… values)")
            if not self.public_url.startswith("https://"):
                problems.append("PUBLIC_URL must be an https:// address in production")
        return problems


_current: Settings | None = None


def use(settings: Settings) -> Settings:
    """Make `settings` what `current()` answers in this process; the entry points call it once at the start."""
    global _current  # noqa: PLW0603 - one process, one configuration
    _current = settings
    return settings


def current() -> Settings:
    """The settings this process runs with; read from the environment when no entry point has chosen them."""
    return _current if _current is not None else use(Settings.from_env())


def _strings(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _positive(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


VARIABLES = {
    "environment": ("VALUEVERSE_ENV", str),
    "home": ("VALUEVERSE_HOME", Path),
    "database_url": ("DATABASE_URL", str),
    "redis_url": ("REDIS_URL", str),
    "smtp_url": ("SMTP_URL", str),
    "mail_from": ("MAIL_FROM", str),
    "public_url": ("PUBLIC_URL", str),
    "secret_key": ("SECRET_KEY", str),
    "api_key_pepper": ("API_KEY_PEPPER", str),
    "encryption_key": ("ENCRYPTION_KEY", str),
    "stripe_api_key": ("STRIPE_API_KEY", str),
    "stripe_publishable_key": ("STRIPE_PUBLISHABLE_KEY", str),
    "stripe_api_base": ("STRIPE_API_BASE", str),
    "stripe_webhook_secrets": ("STRIPE_WEBHOOK_SECRETS", _strings),
    "adjustment_days": ("ADJUSTMENT_DAYS", _positive),
    "payment_terms_days": ("PAYMENT_TERMS_DAYS", _positive),
    "invoice_grace_seconds": ("INVOICE_GRACE_SECONDS", _positive),
    "usage_window_past_days": ("USAGE_WINDOW_PAST_DAYS", _positive),
    "usage_window_future_seconds": ("USAGE_WINDOW_FUTURE_SECONDS", _positive),
    "usage_request_bytes_max": ("USAGE_REQUEST_BYTES_MAX", _positive),
    "usage_events_per_request_max": ("USAGE_EVENTS_PER_REQUEST_MAX", _positive),
    "usage_backlog_events_max": ("USAGE_BACKLOG_EVENTS_MAX", _positive),
    "usage_flush_seconds": ("USAGE_FLUSH_SECONDS", Decimal),
    "usage_dedup_memory_mib": ("USAGE_DEDUP_MEMORY_MIB", _positive),
    "usage_rate_per_second": ("USAGE_RATE_PER_SECOND", _positive),
    "web_workers": ("WEB_WORKERS", _positive),
    "web_threads": ("WEB_THREADS", _positive),
    "trusted_proxies": ("TRUSTED_PROXIES", _positive),
}
SELLER_VARIABLES = {
    "legal_name": "SELLER_LEGAL_NAME",
    "country": "SELLER_COUNTRY",
    "vat_id": "SELLER_VAT_ID",
    "brand": "SELLER_BRAND",
    "register_entry": "SELLER_REGISTER_ENTRY",
    "managing_directors": "SELLER_MANAGING_DIRECTORS",
    "email": "SELLER_EMAIL",
    "iban": "SELLER_IBAN",
    "bic": "SELLER_BIC",
    "bank_name": "SELLER_BANK_NAME",
    "series": "SELLER_SERIES",
}


def _read(variable: str, convert: Any, env: Mapping[str, str], problems: list[str]) -> Any:
    try:
        return convert(env[variable])
    except (ValueError, ArithmeticError) as error:
        problems.append(f"{variable} is not usable: {error}")
        return None


def _seller(env: Mapping[str, str]) -> Seller:
    given = {name: env[variable] for name, variable in SELLER_VARIABLES.items() if variable in env}
    lines = {"address_lines": tuple(env["SELLER_ADDRESS"].split("|"))} if "SELLER_ADDRESS" in env else {}
    return Seller(**given, **lines)  # type: ignore[arg-type]
