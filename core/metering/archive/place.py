"""Where archives lie: a folder or a bucket, by its address (file:///…, s3://bucket/…, gs://…, az://…).

Credentials of a bucket are those its own tools read (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL …).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from core.errors import Unavailable

READ_BYTES = 4 * 1024 * 1024
WRITE_BYTES = 8 * 1024 * 1024


class Place:
    """Files below one address. Every failure of the store is raised as Unavailable."""

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import LocalStore, from_url
        except ImportError as error:
            raise Unavailable("Archives need the extra `archive` (obstore, pyarrow).", retry_after_seconds=0) from error
        address = urlparse(url)
        self.url = url
        if address.scheme == "file":
            self._store: Any = LocalStore(Path(address.path), mkdir=True)
        else:
            self._store = from_url(url)

    def create(self, path: str) -> Digested:
        """A new file, there as a whole once it is closed."""
        import obstore

        return Digested(obstore.open_writer(self._store, path, buffer_size=WRITE_BYTES))

    def put(self, path: str, content: bytes) -> None:
        """A small file at once."""
        import obstore

        obstore.put(self._store, path, content)

    def open(self, path: str) -> Opened:
        """The file for reading. Raises Unavailable when it is not there."""
        import obstore

        try:
            return Opened(obstore.open_reader(self._store, path, buffer_size=READ_BYTES))
        except (FileNotFoundError, obstore.exceptions.BaseError) as error:
            raise Unavailable(f"The archive {path} cannot be read: {error}", retry_after_seconds=60) from error

    def sha256(self, path: str) -> bytes:
        """The hash of the file as it lies there now, read piece by piece."""
        digest = hashlib.sha256()
        file = self.open(path)
        while piece := file.read(READ_BYTES):
            digest.update(piece)
        return digest.digest()


class Opened:
    """A file being read, in the form Python's own files have."""

    def __init__(self, file: Any) -> None:
        self._file, self.closed = file, False

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from here, all of them with -1."""
        return bytes(self._file.readall() if size < 0 else self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place counted from the start (0), here (1) or the end (2)."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """The place reached."""
        return int(self._file.tell())

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing more is read."""
        self.closed = True


class Digested:
    """A file being written, its SHA-256 and its size so far."""

    def __init__(self, file: Any) -> None:
        self._file, self._digest, self.size, self.closed = file, hashlib.sha256(), 0, False

    def write(self, piece: Any) -> int:
        """Append."""
        data = bytes(piece)
        self._digest.update(data)
        self._file.write(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """The store writes when it has enough."""

    def close(self) -> None:
        """Make the file visible under its name."""
        if not self.closed:
            self._file.close()
            self.closed = True

    def writable(self) -> bool:
        """As pyarrow asks of a file."""
        return True

    @property
    def sha256(self) -> bytes:
        """The hash of everything written."""
        return self._digest.digest()
