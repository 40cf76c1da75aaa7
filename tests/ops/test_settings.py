"""Bad settings keep the product from starting, and it says which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.config import ConfigurationError, Settings

GOOD = {"DATABASE_URL": "postgresql://billing:secret@db.example/billing"}
PRODUCTION = {
    **GOOD,
    "VALUEVERSE_ENV": "production",
    "REDIS_URL": "rediss://queue.example/0",
    "SMTP_URL": "smtps://user:secret@mail.example",
    "MAIL_FROM": "Acme Billing <billing@acme.example>",
    "PUBLIC_URL": "https://billing.acme.example",
    "SECRET_KEY": "q8Wn3vYc0LrT6sZk1XfB5mJd9HgP2uEa",
    "API_KEY_PEPPER": "t4Rb7yUe2IoN9aSd6FgK1hLz8XcV5mQw",
    "ENCRYPTION_KEY": "m2Kj6hGf0DsA4pOi8UyT1rEw5QzX9cVb",
    "STRIPE_API_KEY": "sk_live_51NotARealKey",
    "STRIPE_WEBHOOK_SECRETS": "whsec_one, whsec_two",
    "SELLER_LEGAL_NAME": "Acme GmbH",
    "SELLER_ADDRESS": "Hauptstraße 1|10115 Berlin|Germany",
    "SELLER_VAT_ID": "DE123456788",
}

BAD = [
    ("DATABASE_URL", {**GOOD, "DATABASE_URL": ""}),
    ("DATABASE_URL", {**GOOD, "DATABASE_URL": "mysql://db.example/billing"}),
    ("VALUEVERSE_ENV", {**GOOD, "VALUEVERSE_ENV": "prod"}),
    ("REDIS_URL", {**GOOD, "REDIS_URL": "http://queue.example"}),
    ("SMTP_URL", {**GOOD, "SMTP_URL": "mail.example:25"}),
    ("MAIL_FROM", {**GOOD, "MAIL_FROM": "nobody"}),
    ("MAIL_FROM", {**GOOD, "MAIL_FROM": "Billing <a@b.example>\r\nBcc: everyone@b.example"}),
    ("PUBLIC_URL", {**GOOD, "PUBLIC_URL": "https://billing.example/path"}),
    ("STRIPE_API_BASE", {**GOOD, "STRIPE_API_BASE": "localhost"}),
    ("ADJUSTMENT_DAYS", {**GOOD, "ADJUSTMENT_DAYS": "a month"}),
    ("PAYMENT_TERMS_DAYS", {**GOOD, "PAYMENT_TERMS_DAYS": "-1"}),
    ("WEB_WORKERS", {**GOOD, "WEB_WORKERS": "0"}),
    ("USAGE_FLUSH_SECONDS", {**GOOD, "USAGE_FLUSH_SECONDS": "NaN"}),
    ("USAGE_RATE_PER_SECOND", {**GOOD, "USAGE_RATE_PER_SECOND": "1e9"}),
    ("USAGE_UNKNOWN_EVENTS", {**GOOD, "USAGE_UNKNOWN_EVENTS": "maybe"}),
    ("SELLER_COUNTRY", {**GOOD, "SELLER_COUNTRY": "Germany"}),
    ("SECRET_KEY", {**PRODUCTION, "SECRET_KEY": ""}),
    ("SECRET_KEY", {**PRODUCTION, "SECRET_KEY": "short"}),
    ("API_KEY_PEPPER", {**PRODUCTION, "API_KEY_PEPPER": "development-only-secret-not-for-production"}),
    ("ENCRYPTION_KEY", {**PRODUCTION, "ENCRYPTION_KEY": "ab" * 20}),
    ("API_KEY_PEPPER", {**PRODUCTION, "API_KEY_PEPPER": PRODUCTION["SECRET_KEY"]}),
    ("STRIPE_API_KEY", {**PRODUCTION, "STRIPE_API_KEY": ""}),
    ("STRIPE_API_KEY", {**PRODUCTION, "STRIPE_API_KEY": "sk_test_51NotARealKey"}),
    ("STRIPE_WEBHOOK_SECRETS", {**PRODUCTION, "STRIPE_WEBHOOK_SECRETS": " , "}),
    ("STRIPE_API_BASE", {**PRODUCTION, "STRIPE_API_BASE": "http://127.0.0.1:8042"}),
    ("PUBLIC_URL", {**PRODUCTION, "PUBLIC_URL": "http://billing.acme.example"}),
    ("PUBLIC_URL", {**PRODUCTION, "PUBLIC_URL": ""}),
    ("REDIS_URL", {**PRODUCTION, "REDIS_URL": ""}),
    ("SMTP_URL", {**PRODUCTION, "SMTP_URL": ""}),
    ("SELLER_LEGAL_NAME", {**PRODUCTION, "SELLER_LEGAL_NAME": ""}),
    ("SELLER_VAT_ID", {**PRODUCTION, "SELLER_VAT_ID": ""}),
]


@pytest.mark.parametrize(("variable", "environment"), BAD, ids=[f"{index}-{variable}" for index, (variable, _) in enumerate(BAD)])
def test_a_bad_setting_is_refused_by_name(variable: str, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env(environment)
    assert [problem for problem in refused.value.problems if variable in problem]
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize("environment", [GOOD, PRODUCTION], ids=["development", "production"])
def test_good_settings_are_accepted(environment: dict[str, str]) -> None:
    settings = Settings.from_env(environment)
    assert settings.check() == []
    assert settings.production == ("VALUEVERSE_ENV" in environment)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({"VALUEVERSE_ENV": "production", "ADJUSTMENT_DAYS": "x"})
    named = {problem.split()[0] for problem in refused.value.problems}
    assert {"ADJUSTMENT_DAYS", "REDIS_URL", "SMTP_URL", "MAIL_FROM", "PUBLIC_URL", "SELLER_LEGAL_NAME"} <= named


def test_the_command_refuses_and_shows_no_secret() -> None:
    secret = "hunter2hunter2"
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "check-settings"],
        env={"PATH": "/usr/bin", **PRODUCTION, "SECRET_KEY": secret},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "SECRET_KEY" in done.stderr
    assert secret not in done.stdout + done.stderr
