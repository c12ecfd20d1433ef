# SPDX-License-Identifier: MIT
"""Fetch a page over HTTP/3, in an app's container: python3 - HOST [ADDRESS [CA-FILE]] < h3get.py. Prints the body; exit status 1 when there is no
connection."""

import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration

SECONDS = 10


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self.body = b""
        self.done = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        for http_event in self.http.handle_event(event):
            if isinstance(http_event, DataReceived):
                self.body += http_event.data
                if http_event.stream_ended and not self.done.done():
                    self.done.set_result(self.body)

    async def get(self, host):
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", host.encode()), (b":path", b"/")], end_stream=True)
        self.transmit()
        return await self.done


async def main():
    host, address, authorities = (sys.argv[1:] + [None, None])[:3]
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host)
    configuration.load_verify_locations(authorities or "/etc/ssl/certs/ca-certificates.crt")
    async with connect(address or host, 443, configuration=configuration, create_protocol=Client) as client:
        print((await client.get(host)).decode().strip())


try:
    asyncio.run(asyncio.wait_for(main(), SECONDS))
except (OSError, asyncio.TimeoutError) as failure:
    print(f"h3get: {failure!r}", file=sys.stderr)
    sys.exit(1)
