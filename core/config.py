"""Settings: read once from the environment, typed, checked; a missing or weak secret in production refuses to start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from core import environment

WEAK_SECRET = "development-only-secret-not-for-production"  # noqa: S105 - refused in production by check()
SECRET_DIFFERENT_MIN = 10


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
    suspend_unpaid_days: int = 45
    payment_terms_days: int = 14
    invoice_grace_seconds: int = 3600
    usage_window_past_days: int = 35
    usage_window_future_seconds: int = 300
    usage_request_bytes_max: int = 4 * 1024 * 1024
    usage_events_per_request_max: int = 10_000
    usage_backlog_events_max: int = 5_000_000
    usage_flush_seconds: Decimal = Decimal("0.15")
    usage_dedup_memory_mib: int = 2048
    usage_dedup_store: str = "memory"
    usage_rate_per_second: int = 50_000
    usage_unknown_events: str = "strict"
    usage_log_url: str = ""
    usage_archive_url: str = ""
    usage_archive_after_days: int = 37
    usage_events_days: int = 400
    usage_log_days: int = 42
    usage_rejections_days: int = 90
    usage_backfill_alone_events: int = 1_000
    usage_backfill_alone_amount: int = 1_000
    usage_keeping_hour: int | None = 3
    catalog_second_person: bool = False
    api_rate_per_second: int = 200
    web_workers: int = 1
    web_threads: int = 16
    trusted_proxies: int = 0
    metrics_token: str = ""

    @property
    def production(self) -> bool:
        """True where real money moves: weak or missing secrets are refused."""
        return self.environment == "production"

    @property
    def archive_url(self) -> str:
        """Where closed days of usage are archived; empty in production when nobody said."""
        return self.usage_archive_url or ("" if self.production else (self.home.resolve() / "archive").as_uri())

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read and check the settings; raises ConfigurationError naming each variable that is missing or wrong."""
        env = {name: value for name, value in (os.environ if env is None else env).items() if value}
        problems: list[str] = []
        values: dict[str, Any] = {
            name: _read(variable, convert, env, problems) for name, (variable, convert) in VARIABLES.items() if variable in env
        }
        if values.get("environment") == "production":
            problems += [f"{variable} is missing: {why}" for variable, why in REQUIRED_IN_PRODUCTION.items() if variable not in env]
        if problems:
            raise ConfigurationError(problems)
        settings = cls(**values, seller=_seller(env))
        problems = settings.check()
        if problems:
            raise ConfigurationError(problems)
        return settings

    def check(self) -> list[str]:
        """A sentence for each setting that this environment cannot run with."""
        problems = [
            f"{variable} must be {wanted}"
            for variable, value, pattern, wanted in (
                ("USAGE_DEDUP_STORE", self.usage_dedup_store, "memory|table", "memory or table"),
                ("VALUEVERSE_ENV", self.environment, "development|test|production", "development, test or production"),
                ("DATABASE_URL", self.database_url, r"postgres(ql)?(\+psycopg)?://.+", "given as postgresql://user:password@host/database"),
                ("REDIS_URL", self.redis_url, "(rediss?|unix)://.+", "a redis://, rediss:// or unix:// address"),
                ("SMTP_URL", self.smtp_url, "smtps?://.+", "an smtp:// or smtps:// address"),
                ("PUBLIC_URL", self.public_url, r"https?://[^/\s]+/?", "the http(s) address people use, without a path"),
                ("STRIPE_API_BASE", self.stripe_api_base, r"https?://[^/\s]+/?", "an http(s) address without a path"),
                (
                    "MAIL_FROM",
                    self.mail_from,
                    r"([^<>\r\n]+ <[^@\s<>]+@[^@\s<>]+>|[^@\s<>]+@[^@\s<>]+)",
                    "an address, or a name and <address>",
                ),
                ("USAGE_UNKNOWN_EVENTS", self.usage_unknown_events, "strict|lenient", "strict or lenient"),
                ("USAGE_ARCHIVE_URL", self.usage_archive_url, r"((file:/|s3:|gs:|az:)//\S+|)", "a file:///, s3://, gs:// or az:// address"),
                ("USAGE_LOG_URL", self.usage_log_url, r"(kafka://[^/\s]+/[A-Za-z0-9._-]+|)", "kafka://host:9092,host:9092/topic"),
                ("SELLER_COUNTRY", self.seller.country, "[A-Z]{2}", "two capital letters (ISO 3166-1)"),
            )
            if not re.fullmatch(pattern, value)
        ]
        return problems + self._check_retention() + (self._check_production() if self.production else [])

    def _check_retention(self) -> list[str]:
        """Nothing may go while it can still change, or be billed from."""
        least = {
            "USAGE_ARCHIVE_AFTER_DAYS": (self.usage_archive_after_days, self.usage_window_past_days + 2, "events may come that late"),
            "USAGE_EVENTS_DAYS": (self.usage_events_days, self.usage_window_past_days + self.adjustment_days, "cycles change that long"),
            "USAGE_LOG_DAYS": (self.usage_log_days, self.usage_window_past_days, "recounts compare with the log that long"),
        }
        return [f"{name} must be {days} or more: {why}" for name, (value, days, why) in least.items() if value < days]

    def _check_production(self) -> list[str]:
        newest = self.encryption_key.split(",")[0].strip()  # older ones may follow
        secrets = {"SECRET_KEY": self.secret_key, "API_KEY_PEPPER": self.api_key_pepper, "ENCRYPTION_KEY": newest}
        problems = [f"{name} is weak: {reason}" for name, value in secrets.items() if (reason := _weakness(value))]
        if len(set(secrets.values())) < len(secrets):
            problems.append("SECRET_KEY, API_KEY_PEPPER and ENCRYPTION_KEY must differ: one that leaks must not open the others")
        if not self.stripe_api_key:
            problems.append("STRIPE_API_KEY is missing: nobody could pay")
        elif "_test_" in self.stripe_api_key:
            problems.append("STRIPE_API_KEY is a test key: no money would move")
        if not self.stripe_webhook_secrets:
            problems.append("STRIPE_WEBHOOK_SECRETS is missing (comma-separated whsec_… values)")
        if not self.public_url.startswith("https://"):
            problems.append("PUBLIC_URL must be an https:// address in production")
        if not self.stripe_api_base.startswith("https://"):
            problems.append("STRIPE_API_BASE must be an https:// address in production")
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
    "stripe_webhook_secrets": ("STRIPE_WEBHOOK_SECRETS", environment.strings),
    "adjustment_days": ("ADJUSTMENT_DAYS", environment.count),
    "suspend_unpaid_days": ("SUSPEND_UNPAID_DAYS", environment.count),
    "payment_terms_days": ("PAYMENT_TERMS_DAYS", environment.count),
    "invoice_grace_seconds": ("INVOICE_GRACE_SECONDS", environment.count),
    "usage_window_past_days": ("USAGE_WINDOW_PAST_DAYS", environment.count),
    "usage_window_future_seconds": ("USAGE_WINDOW_FUTURE_SECONDS", environment.count),
    "usage_request_bytes_max": ("USAGE_REQUEST_BYTES_MAX", environment.at_least_one),
    "usage_events_per_request_max": ("USAGE_EVENTS_PER_REQUEST_MAX", environment.at_least_one),
    "usage_backlog_events_max": ("USAGE_BACKLOG_EVENTS_MAX", environment.at_least_one),
    "usage_flush_seconds": ("USAGE_FLUSH_SECONDS", environment.seconds),
    "usage_dedup_memory_mib": ("USAGE_DEDUP_MEMORY_MIB", environment.at_least_one),
    "usage_dedup_store": ("USAGE_DEDUP_STORE", str),
    "usage_rate_per_second": ("USAGE_RATE_PER_SECOND", environment.at_least_one),
    "usage_unknown_events": ("USAGE_UNKNOWN_EVENTS", str),
    "usage_log_url": ("USAGE_LOG_URL", str),
    "usage_archive_url": ("USAGE_ARCHIVE_URL", str),
    "usage_archive_after_days": ("USAGE_ARCHIVE_AFTER_DAYS", environment.at_least_one),
    "usage_events_days": ("USAGE_EVENTS_DAYS", environment.at_least_one),
    "usage_log_days": ("USAGE_LOG_DAYS", environment.at_least_one),
    "usage_rejections_days": ("USAGE_REJECTIONS_DAYS", environment.at_least_one),
    "usage_backfill_alone_events": ("USAGE_BACKFILL_ALONE_EVENTS", environment.count),
    "usage_backfill_alone_amount": ("USAGE_BACKFILL_ALONE_AMOUNT", environment.count),
    "catalog_second_person": ("CATALOG_SECOND_PERSON", environment.yes),
    "usage_keeping_hour": ("USAGE_KEEPING_HOUR", environment.hour),
    "api_rate_per_second": ("API_RATE_PER_SECOND", environment.at_least_one),
    "web_workers": ("WEB_WORKERS", environment.at_least_one),
    "web_threads": ("WEB_THREADS", environment.at_least_one),
    "trusted_proxies": ("TRUSTED_PROXIES", environment.count),
    "metrics_token": ("METRICS_TOKEN", environment.secret),
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
REQUIRED_IN_PRODUCTION = {
    "REDIS_URL": "the queue (redis://host/0)",
    "SMTP_URL": "the mail server (smtps://user:password@host)",
    "MAIL_FROM": "the sender of every mail",
    "PUBLIC_URL": "the https:// address people use",
    "SELLER_LEGAL_NAME": "it stands on every invoice",
    "SELLER_ADDRESS": "it stands on every invoice (lines separated by |)",
    "SELLER_VAT_ID": "it stands on every invoice",
}


def _weakness(secret: str) -> str:
    """Why nobody should rely on `secret`; empty when they may (32 random characters hold more than ten different ones)."""
    if secret == WEAK_SECRET or len(secret) < environment.SECRET_LENGTH_MIN:
        return "it is the one everybody knows" if secret == WEAK_SECRET else f"it has fewer than {environment.SECRET_LENGTH_MIN} characters"
    return "it repeats a few characters" if len(set(secret)) < SECRET_DIFFERENT_MIN else ""


def _read(variable: str, convert: Any, env: Mapping[str, str], problems: list[str]) -> Any:
    try:
        return convert(env[variable])
    except ValueError as error:
        problems.append(f"{variable} {error}")
        return None


def _seller(env: Mapping[str, str]) -> Seller:
    given = {name: env[variable] for name, variable in SELLER_VARIABLES.items() if variable in env}
    lines = {"address_lines": tuple(env["SELLER_ADDRESS"].split("|"))} if "SELLER_ADDRESS" in env else {}
    return Seller(**given, **lines)  # type: ignore[arg-type]
