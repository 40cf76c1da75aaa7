"""Second factor: six digits that change every 30 s (RFC 6238), each accepted once, guesses throttled, the secret encrypted at rest."""

from __future__ import annotations

import hmac
import re
from datetime import datetime

import pyotp
from sqlalchemy import update
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.identity import encryption, throttle
from core.identity.models import User

ISSUER = "ValueVerse Billing"
STEP_SECONDS = 30
DRIFT_STEPS = 1
CODE = re.compile(r"[0-9]{6}")


def new_secret() -> str:
    """160 random bits in base32, what an authenticator app is given."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, email: str) -> str:
    """The `otpauth://` address for a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def matching_step(secret: str, code: str, *, at: datetime) -> int | None:
    """The time step whose code this is: now, or one step to either side for clocks that drift; None when it is none of them."""
    if not CODE.fullmatch(code):
        return None
    now = int(at.timestamp()) // STEP_SECONDS
    generator = pyotp.TOTP(secret)
    steps = range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1)
    return next((step for step in steps if hmac.compare_digest(generator.generate_otp(step), code)), None)


def enroll(session: Session, user: User, *, secret: str, code: str, actor: Actor, at: datetime) -> bool:
    """Keep `secret` as the user's second factor if `code` proves that the app has it. False for a wrong code."""
    step = matching_step(secret, code, at=at)
    if step is None:
        return False
    user.totp_secret = encryption.encrypt(secret, place=_place(user))
    user.totp_last_step = step
    session.flush()
    audit.record(session, actor, "user.second_factor_enrolled", user, at=at)
    return True


def check(session: Session, user: User, code: str, *, at: datetime) -> bool:
    """Whether `code` is right and was not used before. Raises RateLimited past ten wrong ones in 15 min.

    The step is claimed by a conditional update, so of two requests with one code only one passes.
    """
    limits = {f"totp:{user.id}": throttle.PER_CODE_MAX}
    throttle.require_free(session, limits, at=at)
    step = matching_step(encryption.decrypt(user.totp_secret, place=_place(user)), code, at=at) if user.totp_secret else None
    if step is not None:
        claim = update(User).where(User.id == user.id, User.totp_last_step < step).values(totp_last_step=step).returning(User.id)
        if session.scalar(claim) is not None:
            throttle.forget(session, f"totp:{user.id}")
            return True
    throttle.note_failure(session, limits, at=at)
    return False


def _place(user: User) -> str:
    return f"users:totp_secret:{user.id}"
