"""A TCP proxy on loopback that can be told to misbehave: to swallow answers, to stand still, to be gone. For drills."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

CHUNK = 1 << 16


class Proxy:
    """Listens on `port` from the start and carries connections to `target` on the same machine."""

    def __init__(self, target: int, *, seed: int = 0, cut_share: float = 0.0) -> None:
        """`cut_share`: the part of connections that are reset when their answer begins to arrive, half of them after some of it."""
        self.target, self.cut_share = target, cut_share
        self.cuts = 0
        self._random = random.Random(seed)
        self._flowing, self._gone = threading.Event(), False
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def freeze(self) -> None:
        """Carry nothing, in either direction, and close nothing: as a network that drops every packet."""
        self._flowing.clear()

    def cut(self) -> None:
        """Reset every connection and each new one."""
        self._gone = True
        with self._guard:
            sides, self._open = self._open, set()
        for side in sides:
            _reset(side)
        self._flowing.set()

    def restore(self) -> None:
        """Carry everything again."""
        self._gone = False
        self._flowing.set()

    def close(self) -> None:
        """Stop listening and end all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        """Both directions of one connection, until either side ends it."""
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            _reset(client)
            return
        with self._guard:
            self._open |= {client, server}
            cut, part = self._random.random() < self.cut_share, self._random.random() < 0.5
        if self._gone:
            self.cut()
            return
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._back, args=(client, server, cut, part), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._guard:
            self._open -= {client, server}
        for side in (client, server):
            side.close()

    def _back(self, client: socket.socket, server: socket.socket, cut: bool, part: bool) -> None:
        if not cut:
            self._pump(server, client)
            return
        with contextlib.suppress(OSError):
            begun = server.recv(CHUNK)
            if begun:
                self.cuts += 1
            if part:
                client.sendall(begun[: len(begun) // 2])
        _reset(client)
        _reset(server)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK):
                self._flowing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone: so is the other
            _reset(source)
            _reset(sink)


def _reset(side: socket.socket) -> None:
    """End a connection both ways at once, also for a thread that is reading from it."""
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
