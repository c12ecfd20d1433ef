#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The pictures of the page in docs/images, from made-up data that are always the same.

    screenshots.py [DIRECTORY]
"""

import os
import sys
import time

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from browser import chromium, prefer, resize
from lab import ROOT
from page_mock import Mock, office

NOW = 1795318801  # 2026-11-22T03:40:01Z


def show(driver, url, rows=5):
    driver.get("about:blank")
    driver.get(url)
    WebDriverWait(driver, 20).until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "tbody tr")) >= rows
                                    and driver.find_element(By.ID, "state").text == "✓ Live")


def open_denial(driver, name):
    driver.find_element(By.XPATH, f"//button[@class='target' and .='{name}']").click()
    WebDriverWait(driver, 20).until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#panel .block"))
    ActionChains(driver).move_to_element(driver.find_element(By.TAG_NAME, "h1")).perform()
    time.sleep(0.2)


def main():
    directory = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "docs", "images")
    os.makedirs(directory, exist_ok=True)
    with Mock(office(lambda: NOW)) as mock, chromium() as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": f"Date.now = () => {NOW * 1000}"})
        for scheme in ("light", "dark"):
            resize(driver, 1280, 860)
            prefer(driver, color_scheme=scheme)
            show(driver, mock.url)
            open_denial(driver, "git.forge.example")
            driver.save_screenshot(os.path.join(directory, f"page-{scheme}.png"))
        prefer(driver, color_scheme="light")
        resize(driver, 390, 844, scale=2, mobile=True)
        show(driver, mock.url)
        driver.save_screenshot(os.path.join(directory, "page-phone.png"))


if __name__ == "__main__":
    main()
