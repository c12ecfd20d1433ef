#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A shell (or a command) beside a running engine, its Internet and our image: for looking around. See run --shell."""

import os
import subprocess
import sys

from engine import Engine
from world import World


def main():
    with World():
        engine = Engine()
        try:
            engine.start()
            engine.remove_everything()
            engine.load_images()
            engine.take_image()
            print(f"docker: chroot {os.environ['SLUICE_DOCKER_CACHE']}/engine-{os.environ['SLUICE_DOCKER_ENGINE']} docker", flush=True)
            return subprocess.call(sys.argv[1:] or ["bash"])
        finally:
            engine.stop()


if __name__ == "__main__":
    sys.exit(main())
