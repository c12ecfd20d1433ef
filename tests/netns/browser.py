# SPDX-License-Identifier: MIT
"""Chromium for tests that look at a page: headless, with a profile of its own, nothing fetched from anywhere else."""

import contextlib
import os
import shutil
import tempfile

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--no-proxy-server")


@contextlib.contextmanager
def chromium(*arguments, width=1280, height=800):
    """A driver; the browser goes when the block is left."""
    with tempfile.TemporaryDirectory(prefix="sluice-page-", ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = shutil.which("chromium")
        for argument in (*ARGUMENTS, *arguments, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(service=Service(shutil.which("chromedriver"), env={**os.environ, "HOME": profile, "TZ": "UTC"}), options=options)
        try:
            resize(driver, width, height)
            yield driver
        finally:
            driver.quit()


def resize(driver, width, height, scale=1, mobile=False):
    """The size of the page, in its own pixels."""
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile})


def prefer(driver, **features):
    """Media features: color_scheme="dark"."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-" + name.replace("_", "-"), "value": value}
                                                                      for name, value in features.items()]})
