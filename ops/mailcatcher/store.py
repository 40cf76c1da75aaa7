"""The mails received so far: one .eml file each, in the order of their arrival."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a mail."""

    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """One received mail, its parts decoded."""

    id: str
    sender: str
    recipients: str
    subject: str
    date: datetime | None
    text: str
    html: str
    attachments: tuple[Attachment, ...]


class Store:
    """A folder of mails. Writing is safe from several threads; a mail is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, content: bytes) -> str:
        """Keep a mail on the disk; its id sorts by arrival."""
        with self._lock:
            mail_id = f"{time.time_ns():020d}"
            partial = self.folder / f".{mail_id}"
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / f"{mail_id}.eml")
        return mail_id

    def ids(self) -> list[str]:
        """Ids of all mails, the newest first."""
        return sorted((path.stem for path in self.folder.glob("[0-9]*.eml")), reverse=True)

    def raw(self, mail_id: str) -> bytes | None:
        """The mail as it came, None when there is no such mail."""
        path = self.folder / f"{mail_id}.eml"
        return path.read_bytes() if mail_id.isdigit() and path.exists() else None

    def get(self, mail_id: str) -> Mail | None:
        """The mail with its parts decoded, None when there is no such mail."""
        content = self.raw(mail_id)
        return None if content is None else parse(mail_id, content)


def parse(mail_id: str, content: bytes) -> Mail:
    """Decode a mail; a part that is missing is empty."""
    message = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(content)
    files = [
        Attachment(part.get_filename() or f"part-{number}", part.get_content_type(), _bytes(part))
        for number, part in enumerate(message.iter_attachments(), start=1)
    ]
    return Mail(
        mail_id,
        str(message["From"] or ""),
        str(message["To"] or ""),
        str(message["Subject"] or "(no subject)"),
        _date(message),
        _body(message, "plain"),
        _body(message, "html"),
        tuple(files),
    )


def _bytes(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    return str(part.get_content()) if part is not None else ""


def _date(message: EmailMessage) -> datetime | None:
    try:
        return parsedate_to_datetime(str(message["Date"]))
    except ValueError:
        return None
