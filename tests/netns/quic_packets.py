# SPDX-License-Identifier: MIT
"""QUIC packets of a client that begins a connection (RFC 9000, RFC 9001), as bytes. Needs python3-cryptography."""

import hashlib
import hmac
import secrets
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hellos import handshake_message

VERSION_1, VERSION_UNKNOWN = 0x00000001, 0x1A2A3A4A
SALT_1 = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
INITIAL, ZERO_RTT = 0, 1
DATAGRAM_SIZE = 1200  # a server takes no smaller one with an Initial in it
PING = b"\x01"


def expand(secret, label, size):
    """HKDF-Expand-Label of TLS 1.3 with no context, for one block."""
    label = b"tls13 " + label
    info = struct.pack("!HB", size, len(label)) + label + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()[:size]


def varint(value):
    return struct.pack("!H", 0x4000 | value)


def crypto(offset, data):
    """A CRYPTO frame."""
    return b"\x06" + varint(offset) + varint(len(data)) + data


def connection_id():
    return secrets.token_bytes(8)


def long_header(kind, dcid, body, version=VERSION_1):
    return bytes([0xC3 | kind << 4]) + struct.pack("!IB", version, len(dcid)) + dcid + b"\0" + body


def initial(dcid, frames, number=0, version=VERSION_1, size=DATAGRAM_SIZE):
    """A protected Initial packet; padded, so that it is a datagram of `size` octets."""
    header = long_header(INITIAL, dcid, b"\0", version)  # no token
    frames += bytes(max(size - len(header) - 2 - 4 - len(frames) - 16, 0))
    header += varint(4 + len(frames) + 16) + struct.pack("!I", number)
    secret = expand(hmac.new(SALT_1, dcid, hashlib.sha256).digest(), b"client in", 32)
    key, iv, hp = expand(secret, b"quic key", 16), expand(secret, b"quic iv", 12), expand(secret, b"quic hp", 16)
    nonce = iv[:8] + bytes(a ^ b for a, b in zip(iv[8:], struct.pack("!I", number)))
    payload = AESGCM(key).encrypt(nonce, frames, header)
    block = Cipher(algorithms.AES(hp), modes.ECB()).encryptor()
    mask = block.update(payload[:16])
    start = len(header) - 4
    masked = bytes(a ^ b for a, b in zip(header[start:], mask[1:5]))
    return bytes([header[0] ^ mask[0] & 0x0F]) + header[1:start] + masked + payload


def hello(name, dcid=None):
    """One datagram with a whole hello."""
    return initial(dcid or connection_id(), crypto(0, handshake_message(name)))


def hello_in_two(name, dcid=None):
    """Two datagrams: neither has the whole of it, and the name is in both."""
    dcid, message = dcid or connection_id(), handshake_message(name)
    middle = message.index(name.encode()) + len(name) // 2
    return (initial(dcid, crypto(0, message[:middle])), initial(dcid, PING + crypto(middle, message[middle:]), number=1))


def zero_rtt(dcid, size=300):
    """What comes with a resumed connection's first flight: nobody on the way can read it."""
    body = struct.pack("!I", 1) + secrets.token_bytes(size)
    return long_header(ZERO_RTT, dcid, varint(len(body)) + body)
