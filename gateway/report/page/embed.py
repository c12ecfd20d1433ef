#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""embed.py OUTPUT FILE...: the files of the page as arrays of C, so that the program needs none beside it. page.html becomes page_html[]."""

import os
import sys


def array(path):
    with open(path, "rb") as file:
        data = file.read()
    name = os.path.basename(path).replace(".", "_")
    lines = (", ".join(str(octet) for octet in data[at:at + 24]) for at in range(0, len(data), 24))
    return f"static const unsigned char {name}[] = {{\n" + ",\n".join(lines) + "\n};\n"


def main():
    output, *paths = sys.argv[1:]
    with open(output, "w", encoding="ascii") as file:
        file.write("".join(array(path) for path in paths))


if __name__ == "__main__":
    main()
