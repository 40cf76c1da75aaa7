"""The mail catcher takes real SMTP and shows what came."""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from ops import ports
from ops.mailcatcher.store import Store, parse

ROOT = Path(__file__).parents[2]


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[tuple[int, str]]:
    smtp, web = ports.free(), ports.free()
    words = ["--smtp-port", str(smtp), "--web-port", str(web), "--folder", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "ops.mailcatcher", *words], cwd=ROOT)
    end = time.monotonic() + 30
    while ports.is_free(web) or ports.is_free(smtp):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    yield smtp, f"http://127.0.0.1:{web}"
    process.terminate()
    assert process.wait(20) == 0


def message() -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "billing@northlight.example", "ap@kunde.example", "Rechnung INV-000001 über 212,12 €"
    mail.set_content("Guten Tag,\n<script>alert(1)</script> Ihre Rechnung liegt bei.\n")
    mail.add_alternative("<p>Guten Tag</p>", subtype="html")
    mail.add_attachment(b"%PDF-1.7 bytes", maintype="application", subtype="pdf", filename="INV-000001.pdf")
    return mail


def fetch(address: str) -> tuple[bytes, dict[str, str]]:
    with urllib.request.urlopen(address, timeout=10) as response:
        return response.read(), dict(response.headers)


def test_a_mail_sent_by_smtp_is_shown_with_its_attachment(catcher: tuple[int, str]) -> None:
    port, address = catcher
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.send_message(message())
    (listed,) = json.loads(fetch(f"{address}/mails.json")[0])
    assert listed["subject"] == "Rechnung INV-000001 über 212,12 €"
    assert listed["attachments"] == [{"name": "INV-000001.pdf", "content_type": "application/pdf", "bytes": 14}]
    page, headers = fetch(f"{address}/mails/{listed['id']}")
    assert b"&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert fetch(f"{address}/mails/{listed['id']}/attachments/0")[0] == b"%PDF-1.7 bytes"
    assert fetch(f"{address}/mails/{listed['id']}/html")[1]["Content-Security-Policy"].endswith("sandbox")
    assert b"Rechnung INV-000001" in fetch(address)[0]


def test_a_mail_without_parts_or_headers_is_shown_too() -> None:
    mail = parse("1", b"\r\njust a body")
    assert (mail.subject, mail.date, mail.text, mail.attachments) == ("(no subject)", None, "just a body", ())


def test_ids_that_are_no_ids_find_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("../../etc/passwd") is None
    assert store.get("1") is None
