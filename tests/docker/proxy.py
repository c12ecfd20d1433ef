#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""An HTTP proxy from the engine's network namespace, which leads nowhere, to this machine's network: images are built through it.

    proxy.py LISTENER NAMESPACE

Both are descriptors: a listening socket of the one, /proc/.../ns/net of the other. It reaches the Debian archive and nothing else.
"""

import os
import socket
import sys
import threading
import urllib.parse

from namespaces import setns

HEAD_MAX = 65536
TIMEOUT = 60  # s


def read_head(client):
    """The request's head, and what already came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece or len(data) > HEAD_MAX:
            raise ConnectionError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), rest


def serve(client, allowed):
    """One request per connection: `GET http://HOST/PATH`; the answer is passed on until the server closes."""
    with client:
        client.settimeout(TIMEOUT)
        try:
            lines, _ = read_head(client)
            method, url, _ = lines[0].split(" ", 2)
            parts = urllib.parse.urlsplit(url)
            if method not in ("GET", "HEAD") or parts.scheme != "http" or parts.hostname not in allowed:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            kept = [line for line in lines[1:] if not line.lower().startswith(("connection:", "proxy-"))]
            request = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
            with socket.create_connection((parts.hostname, parts.port or 80), TIMEOUT) as server:
                server.sendall(request.encode("latin-1"))
                while piece := server.recv(65536):
                    client.sendall(piece)
        except (OSError, ValueError) as error:
            print(f"proxy: {error!r}", file=sys.stderr)


def main():
    listener = socket.socket(fileno=int(sys.argv[1]))
    allowed = set(sys.argv[3:])
    setns(int(sys.argv[2]))
    os.close(int(sys.argv[2]))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, allowed), daemon=True).start()


if __name__ == "__main__":
    main()
