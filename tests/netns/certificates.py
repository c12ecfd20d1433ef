# SPDX-License-Identifier: MIT
"""Certificates for tests, made by openssl(1) when a test run needs them."""

import os
import subprocess

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stdout}"


class Authority:
    """A certificate authority of a test's own. Its certificate is in `file`."""

    def __init__(self, directory, name="Test CA"):
        self.directory, self.name = str(directory), name
        self.file, self.key = self.path("ca.pem"), self.path("ca.key")
        openssl("req", "-x509", *KEY, "-days", "30", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                "-addext", "keyUsage=critical,keyCertSign", "-keyout", self.key, "-out", self.file)
        for index in ("index.txt", "index.txt.attr"):
            with open(self.path(index), "w", encoding="ascii"):
                pass
        with open(self.path("ca.cnf"), "w", encoding="ascii") as file:
            file.write(f"[ca]\ndefault_ca = ca\n[ca]\ndatabase = {self.path('index.txt')}\nnew_certs_dir = {self.directory}\nrand_serial = yes\n"
                       f"default_md = sha256\npolicy = any\nunique_subject = no\ncertificate = {self.file}\nprivate_key = {self.key}\n"
                       "[any]\ncommonName = supplied\n")

    def path(self, name):
        return os.path.join(self.directory, f"{self.name.replace(' ', '-')}-{name}")

    def issue(self, name, expired=False):
        """Return: the files (certificate, key) for a host name."""
        stem = f"{name}{'-expired' if expired else ''}"
        certificate, key, request, extensions = (self.path(stem + end) for end in (".pem", ".key", ".csr", ".ext"))
        dates = ("20200101000000Z", "20200201000000Z") if expired else ("20250101000000Z", "20990101000000Z")
        with open(extensions, "w", encoding="ascii") as file:
            file.write(f"subjectAltName = DNS:{name}\nbasicConstraints = CA:FALSE\n")
        openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl("ca", "-batch", "-notext", "-config", self.path("ca.cnf"), "-in", request, "-out", certificate, "-startdate", dates[0],
                "-enddate", dates[1], "-extfile", extensions)
        return certificate, key


def self_signed(directory, name):
    certificate, key = (os.path.join(str(directory), f"self-{name}{end}") for end in (".pem", ".key"))
    openssl("req", "-x509", *KEY, "-days", "30", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", certificate)
    return certificate, key
