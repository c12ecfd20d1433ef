# SPDX-License-Identifier: MIT
"""What apps do, as programs that run inside of their containers, and what the tests read of pages."""

import os
import re

OK, NO_SUCH_HOST, REFUSED, TIMEOUT = 0, 6, 7, 28  # curl's exit statuses

# python3 - ADDRESS PORT: one datagram, and what becomes of it
UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.send(b'ping')
    print(s.recv(100).decode())
except OSError as error:
    print(type(error).__name__, error)
"""

# python3 - ADDRESS PORT COUNT: a connection that says something every half second
HOLD = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
print('open', flush=True)
for n in range(int(sys.argv[3])):
    s.sendall(b'%d\\n' % n)
    line = s.recv(100)
    print(line.decode().strip(), flush=True)
    time.sleep(0.5)
"""


# python3 - ADDRESS PORT NAME: try to connect to the address until it works, then to the name; print the time of each
AGAIN = """
import socket, sys, time
def until_open(host):
    while True:
        try:
            socket.create_connection((host, int(sys.argv[2])), 0.3).close()
            print(time.time(), flush=True)
            return
        except OSError:
            time.sleep(0.05)
until_open(sys.argv[1])
until_open(sys.argv[3])
"""


def h3get():
    """The HTTP/3 client: python3 - HOST"""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "h3get.py"), encoding="utf-8") as file:
        return file.read()


def fetch(project, service, url):
    """curl's exit status."""
    return project.curl(service, url)[0]


def blocks(path):
    """The indented blocks of a page, without the indentation."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [re.sub(r"^    ", "", block, flags=re.M).strip("\n") + "\n" for block in found]
