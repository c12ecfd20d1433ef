# SPDX-License-Identifier: MIT
"""ClientHellos as OpenSSL's client makes them, as bytes: to be sent in ways that no client would."""

import ssl

RECORD_HEADER = 5


def client_hello(name, protocols=("h2", "http/1.1")):
    """A TLS record. `name`: None: none. More (or longer) protocols make it larger."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def large_hello(name, size):
    """One of about `size` octets."""
    return client_hello(name, [f"{number:0200}" for number in range(size // 201)])


def handshake_message(name, protocols=("h3",)):
    """What QUIC carries: no record around it."""
    return client_hello(name, protocols)[RECORD_HEADER:]
