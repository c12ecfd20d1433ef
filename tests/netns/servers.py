#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The Internet's plain servers, for tests: TCP and UDP on every address of the namespace they run in.

    servers.py --tcp PORT ... --udp PORT ...

TCP: the line "hello" is answered with who speaks to whom; any other line comes back as it is. On the --banner port the
server speaks first, and then every 0.2 s. UDP: each datagram comes back; one that begins with "hello " with " to ADDRESS" at its end.
"""

import argparse
import asyncio
import socket
import struct

IP_PKTINFO = 8
IPV6_FREEBIND = 78


async def on_tcp(reader, writer):
    local, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    try:
        while line := await reader.readline():
            if line == b"hello\n":
                line = f"from {peer[0]} {peer[1]} to {local[0]} {local[1]}\n".encode()
            writer.write(line)
            await writer.drain()
    except (ConnectionError, ValueError):
        pass
    finally:
        writer.close()


async def on_banner(_, writer):
    count = 0
    try:
        while not writer.is_closing():
            writer.write(b"banner %d\n" % count)
            await writer.drain()
            count += 1
            await asyncio.sleep(0.2)
    except ConnectionError:
        pass
    finally:
        writer.close()


def udp_socket(family, port):
    """A socket for all addresses that answers from the one that was written to."""
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        server.bind(("::", port))
    else:
        server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        server.bind(("0.0.0.0", port))
    server.setblocking(False)
    return server


def on_udp(server):
    for _ in range(64):
        try:
            data, control, _, client = server.recvmsg(65535, 256)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error of an earlier answer
        reply = []
        for level, kind, value in control:
            if level == socket.IPPROTO_IP:  # ifindex, spec_dst, destination: answer from the destination
                family, local = socket.AF_INET, value[8:12]
                value = struct.pack("=i4s4s", 0, local, b"\0" * 4)
            else:
                family, local = socket.AF_INET6, value[:16]
                value = local + struct.pack("=i", 0)
            if data.startswith(b"hello "):
                data += b" to " + socket.inet_ntop(family, local).encode()
            reply.append((level, kind, value))
        try:
            server.sendmsg([data], reply, 0, client)
        except OSError:
            pass


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tcp", type=int, nargs="*", default=[])
    parser.add_argument("--udp", type=int, nargs="*", default=[])
    parser.add_argument("--banner", type=int)
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for port in options.tcp:
            listener = socket.create_server((anywhere, port), family=family, backlog=1024)
            await asyncio.start_server(on_tcp, sock=listener)
        if options.banner:
            await asyncio.start_server(on_banner, sock=socket.create_server((anywhere, options.banner), family=family))
        for port in options.udp:
            server = udp_socket(family, port)
            loop.add_reader(server.fileno(), on_udp, server)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
