"""Security headers on every answer, whatever its status (OWASP ASVS 5.0 section 3.4, Content Security Policy Level 3)."""

from __future__ import annotations

from flask import Flask, Response, g, request

EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""The digest of the empty string: plotly.js inserts an empty <style> and fills it through the CSSOM."""

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": f"'self' {EMPTY_STYLE}",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "font-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}

PAYMENT_ORIGINS = {
    "script-src": "https://js.stripe.com",
    "frame-src": "https://js.stripe.com https://hooks.stripe.com",
    "connect-src": "https://api.stripe.com",
}

HSTS = "max-age=31536000; includeSubDomains"


def init_app(app: Flask) -> None:
    """Add the headers to every response of `app`, errors included."""
    app.after_request(_add_headers)


def allow_payment_provider() -> None:
    """Let this one answer load the provider's fields and follow a form to its hosted page (payment pages alone)."""
    g.csp_extra = PAYMENT_ORIGINS


def allow_form_action(origin: str) -> None:
    """Let forms of this one answer be redirected to `origin` (a provider's hosted page)."""
    g.csp_extra = {**g.get("csp_extra", {}), "form-action": origin}


def policy(extra: dict[str, str]) -> str:
    """The policy as a header value, each directive widened by the sources in `extra`."""
    names = [*POLICY, *(name for name in extra if name not in POLICY)]
    return "; ".join(" ".join(part for part in (name, POLICY.get(name, "'self'"), extra.get(name)) if part) for name in names)


USUAL = policy({})


def _add_headers(response: Response) -> Response:
    headers, extra = response.headers, g.get("csp_extra")
    headers.setdefault("Content-Security-Policy", policy(extra) if extra else USUAL)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "strict-origin-when-cross-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
    if request.endpoint not in ("static", "assets.bundle"):
        headers.setdefault("Cache-Control", "private, no-store")
    if request.is_secure:
        headers.setdefault("Strict-Transport-Security", HSTS)
    return response
