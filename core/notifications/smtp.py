"""Speaking SMTP, so that the caller knows whether a message may have been taken."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from enum import StrEnum
from urllib.parse import unquote, urlsplit

TIMEOUT_SECONDS = 20


class Sent(StrEnum):
    """OK: taken. LATER: certainly not taken, try again. REFUSED: never will be. UNKNOWN: the line went dead after the content."""

    OK = "ok"
    LATER = "later"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message."""

    sent: Sent
    detail: str = ""


def send(message: EmailMessage, *, smtp_url: str) -> Answer:
    """Hand one message to the server at `smtp_url` (smtp:// with STARTTLS when offered, smtps:// for TLS from the start)."""
    try:
        server = _connect(smtp_url)
    except (OSError, smtplib.SMTPException) as error:
        return Answer(Sent.LATER, str(error))
    with server:
        try:
            envelope = _envelope(server, message)
        except (OSError, smtplib.SMTPException) as error:
            return Answer(Sent.LATER, str(error))
        return envelope or _content(server, message)


def _connect(smtp_url: str) -> smtplib.SMTP:
    url = urlsplit(smtp_url)
    host = url.hostname or "127.0.0.1"
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
    else:
        server = smtplib.SMTP(host, url.port or 25, timeout=TIMEOUT_SECONDS)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=ssl.create_default_context())
    if url.username:
        server.login(unquote(url.username), unquote(url.password or ""))
    server.ehlo_or_helo_if_needed()
    return server


def _envelope(server: smtplib.SMTP, message: EmailMessage) -> Answer | None:
    """Sender and recipient; an answer when the server refuses one of them."""
    for code, text in (server.mail(_address(message["From"])), server.rcpt(_address(message["To"]))):
        if code >= 500:
            return Answer(Sent.REFUSED, f"{code} {text.decode(errors='replace')}")
        if code >= 400:
            return Answer(Sent.LATER, f"{code} {text.decode(errors='replace')}")
    return None


def _content(server: smtplib.SMTP, message: EmailMessage) -> Answer:
    """The message itself: once it is on its way, silence no longer means that it was not taken."""
    try:
        code, text = server.data(message.as_bytes(policy=message.policy.clone(linesep="\r\n")))
    except smtplib.SMTPDataError as error:
        code, text = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
    except (OSError, smtplib.SMTPException) as error:
        return Answer(Sent.UNKNOWN, str(error))
    detail = f"{code} {text.decode(errors='replace')}"
    if code < 400:
        return Answer(Sent.OK, detail)
    return Answer(Sent.REFUSED if code >= 500 else Sent.LATER, detail)


def _address(header: str) -> str:
    return header.rsplit("<", 1)[-1].rstrip("> ")
