# SPDX-License-Identifier: MIT
"""Faults that are switched on and off while the gateway runs: the other side of tests/faults/inject.c, which has what each one means."""

import contextlib
import mmap
import os
import struct

from gateway import UID

NAMES = ("memory", "nft_send", "nft_commit", "nft_receive", "queue_send", "queue_receive", "flows_send", "flows_receive", "events_receive",
         "table_receive", "route_send", "route_receive", "monitor_receive", "socket", "accept", "open", "write", "memfd", "output", "sync", "rename", "truncate",
         "confine", "filter", "landlock", "loop")
CLOCKS = struct.Struct("qq")
SLOT = struct.Struct("iiiII")
ALWAYS = -1


def library(binary):
    """Where the build has it that the program under test is from; None: a build with sanitizers has none."""
    path = os.path.join(os.path.dirname(os.path.dirname(binary)), "tests", "faults", "inject.so")
    return path if os.path.exists(path) else None


class Faults:
    """The page that the worker looks at before each call."""

    def __init__(self, lab):
        self.path = os.path.join(lab.directory, "faults")
        self.library = library(lab.gateway.binary)
        with open(self.path, "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self.page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        os.chown(self.path, UID, UID)

    def environment(self):
        """For Gateway.start()."""
        return {"LD_PRELOAD": self.library, "SLUICE_FAULTS": self.path}

    @staticmethod
    def offset(name):
        return CLOCKS.size + SLOT.size * NAMES.index(name)

    def set(self, name, error, after=0, times=ALWAYS):
        """Calls fail with an errno: all but the first `after`, and `times` of them."""
        SLOT.pack_into(self.page, self.offset(name), 0, after, times, 0, 0)
        struct.pack_into("i", self.page, self.offset(name), error)

    def clear(self, name=None):
        for each in NAMES if name is None else (name,):
            struct.pack_into("i", self.page, self.offset(each), 0)

    def calls(self, name):
        """Calls since set()."""
        return SLOT.unpack_from(self.page, self.offset(name))[3]

    def hits(self, name):
        """Those that failed."""
        return SLOT.unpack_from(self.page, self.offset(name))[4]

    @contextlib.contextmanager
    def on(self, name, error, after=0, times=ALWAYS):
        self.set(name, error, after, times)
        try:
            yield
        finally:
            self.clear(name)

    def clocks(self, wall=0, uptime=0):
        """Seconds by which the worker's clocks are ahead."""
        CLOCKS.pack_into(self.page, 0, int(wall * 10**9), int(uptime * 10**9))

    def close(self):
        self.page.close()
