# SPDX-License-Identifier: MIT
"""Real programs on both sides: a web server with HTTP/1, 2 and 3, an SSH server, a browser. Started when a test first wants them."""

import base64
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time

from app import family_of
from lab import SITE4
from namespaces import command, patience

WEB_NAMES = ("h3.https.example", "h3.elsewhere.example")
CADDYFILE = """{{
	admin off
	auto_https disable_redirects
	storage file_system {directory}
	log {{
		output discard
	}}
}}
{sites} {{
	tls {directory}/cert.pem {directory}/key.pem
	respond "proto={{http.request.proto}}"
}}
http://plain.any.example {{
	respond "plain"
}}
"""


def wait_for_port(app, address, port, seconds=20):
    """Wait until something listens there."""
    end = time.monotonic() + patience(seconds)
    while True:
        with app.socket(family_of(address)) as sock:
            sock.settimeout(1)
            if sock.connect_ex((address, port)) == 0:
                return
        if time.monotonic() > end:
            raise AssertionError(f"nothing listens on {address} port {port}")
        time.sleep(0.05)


def spki_of(key):
    """What Chromium calls the key of a certificate by, from the file of the private key."""
    public = subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


def browse(run, url, spki, directory, quic=True, more=()):
    """Load a page in Chromium, which `run` starts like Namespace.run(), with a profile of its own below `directory` and `more` options.
    Return: the page's text, "" when it cannot be reached."""
    host = url.split("/")[2]
    options = ["--enable-quic", f"--origin-to-force-quic-on={host}:443"] if quic else ["--disable-quic"]
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as profile:
        return run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}", *options,
                    f"--ignore-certificate-errors-spki-list={spki}", *more, "--dump-dom", url],
                   timeout=60, env={**os.environ, "HOME": profile}).stdout


class Web:
    """Caddy in the `site` namespace, with a certificate that only these tests trust."""

    def __init__(self, lab, sites=WEB_NAMES):
        self.directory = os.path.join(lab.directory, "web")
        os.mkdir(self.directory)
        key, certificate = self.directory + "/key.pem", self.directory + "/cert.pem"
        names = ",".join(f"DNS:{name}" for name in sites)
        command(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=test",
                 "-keyout", key, "-out", certificate, "-addext", f"subjectAltName={names}"])
        self.certificate = certificate
        self.spki = spki_of(key)
        with open(self.directory + "/Caddyfile", "w", encoding="ascii") as file:
            file.write(CADDYFILE.format(directory=self.directory, sites=", ".join(sites)))
        for name in (*sites, "plain.any.example"):
            lab.names.add(name, A=SITE4)
        with open(self.directory + "/log", "wb") as log:
            lab.site.start(["caddy", "run", "--config", self.directory + "/Caddyfile", "--adapter", "caddyfile"], stdout=log, stderr=log,
                           env={**os.environ, "HOME": self.directory})
        wait_for_port(lab.site, SITE4, 443)

    def fetch(self, app, url):
        """Fetch with curl. Return: exit status, body."""
        done = app.run(["curl", "--silent", "--show-error", "--cacert", self.certificate, "--max-time", "20", url], timeout=25)
        return done.returncode, done.stdout

    def browse(self, app, url, quic=True, more=()):
        """Load a page in an app's Chromium: browse()."""
        return browse(app.run, url, self.spki, self.directory, quic, more)


class Ssh:
    """sshd on port 22 of the `site` namespace, with a host key and a user key of its own."""

    def __init__(self, lab):
        self.directory = os.path.join(lab.directory, "ssh")
        os.mkdir(self.directory, 0o700)
        for key in ("host", "user"):
            command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.directory}/{key}"])
        shutil.copy(f"{self.directory}/user.pub", f"{self.directory}/authorized_keys")
        with open(f"{self.directory}/config", "w", encoding="ascii") as file:
            file.write(f"Port 22\nHostKey {self.directory}/host\nPidFile {self.directory}/pid\nAuthorizedKeysFile {self.directory}/authorized_keys\n"
                       "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        with open(f"{self.directory}/log", "wb") as log:
            lab.site.start(["/usr/sbin/sshd", "-D", "-e", "-f", f"{self.directory}/config"], stdout=log, stderr=log)
        wait_for_port(lab.site, SITE4, 22)

    def user_key(self):
        """The key that may log in, as text."""
        with open(f"{self.directory}/user", encoding="ascii") as file:
            return file.read()

    def run(self, app, host, remote):
        """Run a command over SSH. Return: CompletedProcess."""
        user = pwd.getpwuid(os.getuid()).pw_name
        return app.run(["ssh", "-F", "none", "-i", f"{self.directory}/user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                        "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", f"{user}@{host}", remote])


def browser_missing():
    return None if shutil.which("chromium") and shutil.which("caddy") else "chromium or caddy is not installed"
