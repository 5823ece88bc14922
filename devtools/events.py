"""ComfyUI's event stream: a WebSocket reader of the few lines that a local server needs (RFC 6455)."""

import base64
import contextlib
import json
import os
import socket
import struct
import threading

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


class EventStream:
    """Events of one client id, collected in `events` as (type, data) by a thread of its own.

    Binary messages (previews, progress texts) are kept as ("binary", bytes).
    """

    def __init__(self, port, client_id):
        self.events = []
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._buffer = b""
        self._shake_hands(port, client_id)
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self):
        """Ends the connection and the thread."""
        # The server may have closed it already.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _shake_hands(self, port, client_id):
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._socket.sendall(request.encode())
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise ConnectionError(f"no event stream: {head.splitlines()[0].decode()}")

    def _receive(self):
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed the event stream")
        return data

    def _take(self, count):
        while len(self._buffer) < count:
            self._buffer += self._receive()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _frame(self):
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        return bool(first & 0x80), first & 0x0F, self._take(length)

    def _listen(self):
        message, kind = b"", None
        try:
            while True:
                final, code, payload = self._frame()
                if code == _CLOSE:
                    return
                if code == _PING:
                    self._pong(payload)
                    continue
                if code == _PONG:
                    continue
                if code != _CONTINUATION:
                    message, kind = b"", code
                message += payload
                if final:
                    self._note(kind, message)
        except (OSError, ConnectionError):
            return

    def _pong(self, payload):
        # A client's frames are masked; a mask of zeros leaves the payload as it is.
        self._socket.sendall(bytes([0x80 | _PONG, 0x80 | len(payload)]) + bytes(4) + payload)

    def _note(self, kind, message):
        if kind == _BINARY:
            self.events.append(("binary", message))
        elif kind == _TEXT:
            parsed = json.loads(message)
            self.events.append((parsed["type"], parsed.get("data")))
