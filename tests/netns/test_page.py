# SPDX-License-Identifier: MIT
"""The page in a real browser: what it shows, what one can do with it, and what nobody can do to it. All but the last tests have no gateway (page_mock.py)."""

import os
import re
import socket
import struct
import subprocess
import threading
import time

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from browser import chromium, prefer, resize
from lab import POLICY, UPSTREAM, Lab, binary
from namespaces import wait_until
from page_mock import HOSTILE, PAGE, Mock, crowd, hostile, office

pytestmark = pytest.mark.browser

VIEWS = ("denied", "apps", "live")

CONTRASTS = """
const lightness = ([red, green, blue]) => [[red, 0.2126], [green, 0.7152], [blue, 0.0722]].reduce((sum, [part, weight]) => {
	const value = part / 255;
	return sum + weight * (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
}, 0);
const parse = (colour) => colour.match(/[0-9.]+/g).map(Number);
const behind = (element) => {
	for (; element; element = element.parentElement) {
		const colour = parse(getComputedStyle(element).backgroundColor);
		if (colour.length < 4 || colour[3] === 1)
			return colour;
	}
	return [255, 255, 255];
};
const found = {};
for (const element of document.body.querySelectorAll('*')) {
	if (element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) {
		const [light, dark] = [lightness(parse(getComputedStyle(element).color)), lightness(behind(element))].sort((a, b) => b - a);
		found[`${element.tagName} ${element.className} ${element.textContent.slice(0, 20)}`] = (light + 0.05) / (dark + 0.05);
	}
}
return found;
"""

OUTSIDE = """
const inside = (element) => element.checkVisibility() && !element.closest('.unseen') ? element.getBoundingClientRect() : null;
const out = [...document.body.querySelectorAll('*')].filter((element) => {
	const box = inside(element);
	return box && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((element) => element.outerHTML.slice(0, 120));
return document.documentElement.scrollWidth > innerWidth ? [`the page is ${document.documentElement.scrollWidth} wide`, ...out] : out;
"""


class Page:
    """What a person sees and does."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, state="✓ Live"):
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(url)
        self.wait_state(state)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.one(selector).text

    def wait_state(self, text):
        self.wait(lambda: self.text("#state") == text, f"not in state {text}")

    def wait(self, condition, otherwise, seconds=10):
        def holds():
            try:
                return condition()
            except StaleElementReferenceException:
                return False
        try:
            wait_until(holds, otherwise, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page shows:\n{self.one('body').text[:3000]}") from None

    def rows(self):
        """The rows of the list, as texts of their cells."""
        return self.driver.execute_script("return [...document.querySelectorAll('tbody tr')].map((row) => [...row.children].map((cell) => cell.innerText.trim()))")

    def targets(self):
        return self.driver.execute_script("return [...document.querySelectorAll('tbody .target')].map((target) => target.textContent)")

    def show(self, view):
        self.driver.execute_script("scrollTo(0, 0)")
        self.one(f"nav a[href='#{view}']").click()
        self.wait(lambda: self.one("nav a[aria-current='page']").get_attribute("href").endswith("#" + view), f"{view} is not shown")

    def target(self, name):
        return self.driver.find_element(By.XPATH, f"//tbody//button[.='{name}']")

    def open_panel(self, name):
        self.target(name).click()
        self.wait(lambda: self.all("#panel .block, #panel h3 + div > p"), f"no advice on {name}")

    def suggest(self, network):
        self.driver.find_element(By.XPATH, f"//li[.//button[.='{network}']]/button[.='Suggest rules']").click()

    def filter(self, text):
        self.one("#filter").clear()
        self.one("#filter").send_keys(text)

    def focused(self):
        return self.driver.switch_to.active_element

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def console(self):
        """What the browser complained about since open()."""
        return self.driver.get_log("browser")


@pytest.fixture(scope="module")
def driver():
    with chromium() as started:
        yield started


@pytest.fixture
def page(driver):  # pylint: disable=redefined-outer-name
    resize(driver, 1280, 860)
    prefer(driver, color_scheme="light")
    yield Page(driver)
    driver.get("about:blank")


@pytest.fixture
def mock():
    with Mock(office()) as server:
        yield server


@pytest.fixture
def shown(page, mock):  # pylint: disable=redefined-outer-name
    page.open(mock.url)
    return page


# --- what it shows ---

def test_networks_with_mode_figures_apps_and_names(shown):
    lines = [item.text.replace("\n", " ") for item in shown.all("#networks li")]
    assert [line.split()[0] for line in lines] == ["ci", "mail", "web"]
    assert "△ audit" in lines[0] and "△438 let pass" in lines[0].replace("△ 438", "△438") and "Suggest rules" in lines[0]
    assert "✓ enforce" in lines[1] and "63 denied" in lines[1] and "376 allowed" in lines[1] and "Suggest" not in lines[1]
    assert "3 apps, 9 names, 9 open" in lines[2] and "15 MB sent, 941 MB received" in lines[2]


def test_denials_are_grouped_and_the_newest_are_first(shown):
    rows = shown.rows()
    assert shown.targets()[:4] == ["q7f3k9x2m1.d4t4b8.exfil.example", "metrics.tracker.example", "registry.images.example", "169.254.169.254"]
    assert rows[1][:2] == ["✗ denied", "shop web"] and rows[1][3:5] == ["name not allowed", "1,204 ×"]
    assert rows[2][0] == "△ audit"
    forge = [row for row in rows if row[2].startswith("git.forge.example")]
    assert len(forge) == 1, "two ports of one app and name are one row"
    assert forge[0][4] == "3 ×" and "22/tcp" in forge[0][2] and "9418/tcp" in forge[0][2]


def test_what_was_seen_for_the_first_time_is_marked_new(shown):
    fresh = {row[2].split()[0] for row in shown.rows() if row[2].endswith("new")}
    assert fresh == {"q7f3k9x2m1.d4t4b8.exfil.example", "git.forge.example"}


def test_denied_and_allowed_come_live(shown, mock):
    mock.world.tell("denied", "mail", "rspamd", "10.201.2.5", "late.arrival.example", None, None, "dns", "name-not-allowed")
    shown.wait(lambda: shown.targets()[0] == "late.arrival.example", "a denial does not appear")
    assert shown.rows()[0][2].endswith("new")
    shown.wait(lambda: "64 denied" in shown.text("#networks li:nth-child(2)"), "the sum does not follow")
    mock.world.tell("allowed", "mail", "rspamd", "10.201.2.5", "fine.arrival.example", "198.51.100.99", 443)
    shown.show("live")
    shown.wait(lambda: shown.targets()[:2] == ["fine.arrival.example", "late.arrival.example"], "a flow does not appear")
    assert [row[1] for row in shown.rows()[:2]] == ["✓ allowed", "✗ denied"]
    shown.show("apps")
    shown.wait(lambda: "fine.arrival.example" in shown.targets(), "a flow is not counted")
    row = next(row for row in shown.rows() if row[1].startswith("fine.arrival"))
    assert row[2:4] == ["0", "✓ 1"]


def test_apps_and_names_with_bytes_can_be_sorted(shown):
    shown.show("apps")
    row = next(row for row in shown.rows() if row[1].startswith("images.cdn"))
    assert row[:1] + row[2:7] == ["shop web", "0", "✓ 2,240", "6", "4.1 MB", "812 MB"]
    shown.driver.find_element(By.XPATH, "//th/button[starts-with(., 'Received')]").click()
    assert shown.targets()[0] == "images.cdn.example"
    assert [header.get_attribute("aria-sort") for header in shown.all("th")][6] == "descending"
    assert shown.focused().text.startswith("Received"), "the heading keeps the focus"
    shown.focused().send_keys(Keys.ENTER)
    assert shown.targets()[-1] == "images.cdn.example"
    assert [header.get_attribute("aria-sort") for header in shown.all("th")][6] == "ascending"


def test_live_shows_what_ended_what_came_in_and_sums(shown):
    shown.show("live")
    by_outcome = {row[1]: row for row in reversed(shown.rows())}
    assert by_outcome["– ended"][4] == "3.1 kB sent, 5.8 kB received, 0.4 s"
    assert by_outcome["✓ inbound"][4] == "from outside, port 25"
    assert ["19 questions", "repeated, answered"] in [[row[3], row[4]] for row in shown.rows()]


# --- why, and the rule ---

def test_a_click_shows_why_and_the_rule_and_what_it_opens(shown, mock):
    shown.open_panel("169.254.169.254")
    text = shown.text("#panel")
    assert shown.text("#panel-title") == "169.254.169.254"
    assert "that no rule names" in text and "metadata service" in text and "[network web]" in text
    assert shown.text("#panel code:not(p code)") == "allow = 169.254.169.254:80/tcp"
    asked = next(path for path in mock.requests if "/api/advise" in path)
    assert asked == "/api/advise?network=web&address=169.254.169.254&port=80&proto=tcp&reason=special-address"


def test_a_rule_that_denied_is_named(shown):
    shown.open_panel("ads.vendor.example")
    assert "A deny rule matches." in shown.text("#panel") and "/etc/sluice/sluice.conf:31" in shown.text("#panel")


def test_it_says_when_no_rule_can_allow_it(shown):
    shown.open_panel("10.201.1.5")
    assert "networks are isolated from each other" in shown.text("#panel")
    assert not shown.all("#panel .block")


def test_each_port_has_its_own_rule(shown):
    shown.open_panel("git.forge.example")
    choice = Select(shown.one("#panel select"))
    assert [option.text for option in choice.options] == ["9418/tcp: port not allowed, 1 time", "22/tcp: port not allowed, 2 times"]
    choice.select_by_index(1)
    shown.wait(lambda: shown.all("#panel pre") and shown.text("#panel pre") == "allow = git.forge.example:22/tcp", "no rule for the other port")


def test_the_panel_follows_what_happens(shown, mock):
    shown.open_panel("metrics.tracker.example")
    assert "1,204 times" in shown.text("#panel dl")
    mock.world.tell("denied", "web", "shop", "10.201.1.5", "metrics.tracker.example", None, None, "dns", "name-not-allowed")
    shown.wait(lambda: "1,205 times" in shown.text("#panel dl"), "the panel stands still")


def test_the_panel_stays_right_when_the_gateway_does_not_answer(shown, mock):
    mock.down()
    try:
        shown.target("metrics.tracker.example").click()
        shown.wait(lambda: "✗ The gateway did not answer" in shown.text("#panel"), "nothing is said")
    finally:
        mock.up()


def test_the_rule_can_be_copied(shown, mock):
    shown.driver.execute_cdp_cmd("Browser.grantPermissions", {"origin": mock.url.rstrip("/"), "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    shown.open_panel("metrics.tracker.example")
    shown.one("#panel .block button").click()
    shown.wait(lambda: "✓ Copied" in shown.text("#panel .block"), "it is not said that it was copied")
    assert shown.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])") == "allow = metrics.tracker.example"


def test_without_a_clipboard_the_rule_is_selected(shown):
    shown.driver.execute_script("Object.defineProperty(navigator, 'clipboard', { value: undefined }); document.execCommand = () => false")
    shown.open_panel("metrics.tracker.example")
    shown.one("#panel .block button").click()
    shown.wait(lambda: "press Ctrl+C" in shown.text("#panel .block"), "it is not said what to do")
    assert shown.driver.execute_script("return String(getSelection())") == "allow = metrics.tracker.example"


def check_policy(tmp_path, network, rules):
    """What `sluice check` says about the rules below that network's section."""
    path = tmp_path / "sluice.conf"
    path.write_text(f"{UPSTREAM}\n[network {network}]\nsubnet = 10.201.3.0/24\n{rules}\n", encoding="utf-8")
    return subprocess.run([binary(), "check", str(path)], capture_output=True, text=True, check=False)


def test_audit_mode_suggests_rules_that_load_as_they_are(shown, tmp_path):
    shown.suggest("ci")
    shown.wait(lambda: shown.all("#panel pre"), "no suggestion")
    exact, wildcard = [block.text for block in shown.all("#panel pre")]
    assert re.findall("^allow = (.*)$", exact, re.M) == ["deb.mirror.example:80/tcp", "proxy.modules.example:443/tcp", "registry.images.example:443/tcp"]
    assert "; 40 flows; runner-1; through edge-17.cdn.example" in exact
    assert wildcard == "allow = *.blobs.example:443/tcp"
    assert "10.0.0.7:5432/tcp: special-purpose address" in shown.text("#panel")
    done = check_policy(tmp_path, "ci", f"{exact}\n{wildcard}")
    assert done.returncode == 0, done.stdout + done.stderr


# --- finding things, and quiet ---

def test_the_filter(shown):
    shown.filter("WEB port")
    shown.wait(lambda: shown.targets() == ["git.forge.example"], "words must all match")
    shown.filter("443/tcp")
    shown.wait(lambda: set(shown.targets()) == {"registry.images.example", "proxy.modules.example"}, "ports can be found")
    shown.filter("no such thing")
    shown.wait(lambda: shown.text("#empty") == "Nothing matches the filter.", "an empty list without a word")
    shown.filter("new")
    shown.wait(lambda: len(shown.targets()) == 2, "what is new can be found")


def test_a_network_alone(shown):
    button = shown.driver.find_element(By.XPATH, "//li//button[.='mail']")
    button.click()
    assert set(shown.targets()) == {"192.0.2.53", "10.201.1.5"} and button.get_attribute("aria-pressed") == "true"
    button.click()
    assert len(shown.targets()) == 10


def test_pause_and_resume(shown, mock):
    shown.one("#pause").click()
    shown.wait_state("❚❚ Paused")
    before = shown.targets()
    for number in range(3):
        mock.world.tell("denied", "web", "shop", "10.201.1.5", f"while-paused-{number}.example", None, None, "dns", "name-not-allowed")
    shown.wait(lambda: shown.text("#waiting") == "3 waiting", "what waits is not counted")
    shown.filter("example")
    shown.wait(lambda: all("example" in name for name in shown.targets()), "the filter works while paused")
    assert not [name for name in shown.targets() if "while-paused" in name]
    shown.filter(" ")
    shown.wait(lambda: shown.targets() == before, "a pause changes nothing")
    assert shown.text("#pause") == "Resume"
    shown.one("#pause").click()
    shown.wait(lambda: len([name for name in shown.targets() if "while-paused" in name]) == 3, "what was missed does not come")
    assert shown.text("#state") == "✓ Live" and shown.text("#waiting") == ""


def test_it_says_when_the_gateway_is_gone_and_comes_back_by_itself(shown, mock):
    mock.down()
    shown.wait_state("✗ Not connected")
    assert "The gateway cannot be reached since" in shown.text("#banner") and "What you see is from" in shown.text("#banner")
    assert len(shown.targets()) == 10, "what is known stays"
    mock.world.tell("denied", "web", "shop", "10.201.1.5", "meanwhile.example", None, None, "dns", "name-not-allowed")
    mock.up()
    shown.wait(lambda: shown.text("#state") == "✓ Live", "it does not come back", seconds=30)
    shown.wait(lambda: shown.targets()[0] == "meanwhile.example", "what was missed does not come")
    assert not shown.one("#banner").is_displayed()
    mock.world.tell("denied", "web", "shop", "10.201.1.5", "afterwards.example", None, None, "dns", "name-not-allowed")
    shown.show("live")
    shown.wait(lambda: shown.targets()[:2] == ["afterwards.example", "meanwhile.example"], "the stream did not come back")


def test_without_a_stream_the_figures_still_follow(page):
    with Mock(office(), streams=False) as mock:  # pylint: disable=redefined-outer-name
        page.open(mock.url, "△ Every 5 s")
        mock.world.tell("denied", "web", "shop", "10.201.1.5", "slowly.example", None, None, "dns", "name-not-allowed")
        page.wait(lambda: page.targets()[0] == "slowly.example", "nothing moves", seconds=20)


def test_trouble_of_the_gateway_is_not_taken_for_its_absence(shown, mock):
    mock.broken = True
    shown.wait(lambda: "The gateway answers HTTP 503 since" in shown.text("#banner"), "trouble is not told", seconds=20)
    mock.broken = False
    shown.wait_state("✓ Live")


def test_a_page_that_nobody_sees_has_no_connection(shown, mock):
    def hide(hidden):
        shown.driver.execute_script("""
            Object.defineProperty(document, 'hidden', { configurable: true, value: arguments[0] });
            document.dispatchEvent(new Event('visibilitychange'));
        """, hidden)

    def tell():
        mock.world.tell("denied", "web", "shop", "10.201.1.5", "unseen.example", None, None, "dns", "name-not-allowed")
        return mock.world.listeners
    hide(True)
    shown.wait(lambda: not tell(), "the stream stays open")
    asked = len(mock.requests)
    time.sleep(7)  # longer than between two looks
    assert len(mock.requests) == asked
    hide(False)
    shown.wait(lambda: shown.text("#state") == "✓ Live" and shown.targets()[0] == "unseen.example", "what was missed does not come")


def test_below_a_prefix_of_a_reverse_proxy(page):
    with Mock(office(), prefix="/tools/sluice/") as mock:  # pylint: disable=redefined-outer-name
        page.open(mock.url)
        page.open_panel("metrics.tracker.example")
        assert all(path.startswith("/tools/sluice/") for path in mock.requests)
        assert page.console() == []


def test_nothing_yet(page):
    world = office()
    world.networks.clear()
    world.rows.clear()
    world.log.clear()
    with Mock(world) as mock:  # pylint: disable=redefined-outer-name
        page.open(mock.url)
        for view, words in zip(VIEWS, ("Nothing was denied yet.", "No app was seen yet.", "Nothing has happened yet.")):
            page.show(view)
            page.wait(lambda words=words: page.text("#empty") == words, f"an empty {view} list without a word")
        assert page.console() == []


# --- many ---

def test_thousands_of_rows_stay_bounded(page):
    with Mock(crowd(2000)) as mock:  # pylint: disable=redefined-outer-name
        page.open(mock.url)
        assert len(page.all("tbody tr")) == 200 and page.text("nav a span") == "2,000"
        assert page.text("#more span") == "1,800 more."
        for rows in (400, 600, 800, 1000):
            page.one("#more button").click()
            assert len(page.all("tbody tr")) == rows
        assert page.text("#more") == "1,000 more: use the filter."
        page.filter("host-1999.")
        page.wait(lambda: page.targets() == ["host-1999.crowd.example"], "the filter finds what is not shown")


def test_a_burst_is_rendered_twice_a_second_at_most(page):
    with Mock(crowd(1000)) as mock:  # pylint: disable=redefined-outer-name
        page.open(mock.url)
        for _ in range(4):
            page.one("#more button").click()
        page.driver.execute_script("""
            window.renderings = [];
            new MutationObserver(() => renderings.push(performance.now())).observe(document.querySelector('main'), { childList: true, subtree: true, characterData: true });
        """)
        for number in range(600):
            mock.world.tell("denied", "web", f"app-{number % 50}", f"10.201.1.{number % 50 + 2}", f"burst-{number}.example", None, None, "dns", "name-not-allowed")
            time.sleep(0.005)
        page.wait(lambda: page.targets()[0].startswith("burst-") and page.text("nav a span") == "1,600", "the burst does not appear")
        times = page.driver.execute_script("return renderings")
        gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        assert len(times) >= 2 and min(gaps) > 400, gaps
        assert len(page.all("tbody tr")) <= 1000
        page.show("live")
        assert len(page.all("tbody tr")) <= 500


def test_new_denials_are_announced_but_not_all_the_time(shown, mock):
    assert shown.one("#announce").get_attribute("aria-live") == "polite"
    shown.driver.execute_script("""
        window.announced = [];
        new MutationObserver(() => announced.push([performance.now(), document.querySelector('#announce').textContent]))
            .observe(document.querySelector('#announce'), { childList: true });
    """)

    def announced():
        return shown.driver.execute_script("return announced")

    mock.world.tell("denied", "web", "shop", "10.201.1.5", "metrics.tracker.example", None, None, "dns", "name-not-allowed")
    mock.world.tell("denied", "web", "shop", "10.201.1.5", "first.say.example", None, None, "dns", "name-not-allowed")
    shown.wait(lambda: len(announced()) == 1, "nothing is announced")
    assert announced()[0][1] == "1 new denial. The last: shop to first.say.example, name not allowed."
    for number in range(4):
        mock.world.tell("denied", "web", "shop", "10.201.1.5", f"more-{number}.say.example", None, None, "dns", "name-not-allowed")
        time.sleep(0.7)
    shown.wait(lambda: len(announced()) == 2, "the others are never announced", seconds=20)
    assert announced()[1][1].startswith("4 new denials.")
    assert announced()[1][0] - announced()[0][0] > 9000


# --- hands off the mouse, small screens, eyes ---

def test_everything_works_by_keyboard(shown):
    seen = []
    for _ in range(12):
        shown.keys(Keys.TAB)
        seen.append(shown.focused().text or shown.focused().get_attribute("id"))
        style = shown.driver.execute_script("""
            const element = document.activeElement;
            return [getComputedStyle(element).outlineStyle, getComputedStyle(element, '::after').outlineStyle];
        """)
        assert "solid" in style, f"the focus on {seen[-1]} cannot be seen"
    assert seen[:9] == ["filter", "Pause", "ci", "Suggest rules", "mail", "web", "Denied 10", "Apps 17", "Live"]
    assert seen[9] == shown.targets()[0]
    shown.keys(Keys.ARROW_UP)
    shown.keys(Keys.ENTER)
    name = shown.targets()[1]
    shown.wait(lambda: shown.all("#panel .block"), "Enter opens nothing")
    assert shown.text("#panel-title") == name and shown.focused().get_attribute("id") == "panel-title"
    shown.keys(Keys.ESCAPE)
    assert not shown.one("#panel").is_displayed() and shown.focused().text == name
    shown.keys(Keys.ARROW_DOWN)
    assert shown.focused().text == shown.targets()[2]


def test_the_focus_stays_where_it_is_while_the_list_moves(shown, mock):
    shown.driver.execute_script("[...document.querySelectorAll('tbody .target')][5].focus()")
    name = shown.focused().text
    mock.world.tell("denied", "web", "shop", "10.201.1.5", "on-top.example", None, None, "dns", "name-not-allowed")
    mock.world.tell("denied", "mail", "rspamd", "10.201.2.5", None, "192.0.2.53", 53, "udp", "address-not-allowed")
    shown.wait(lambda: set(shown.targets()[:2]) == {"on-top.example", "192.0.2.53"}, "the list does not move")
    assert shown.focused().text == name


def test_on_a_phone_the_panel_takes_the_screen_and_the_keyboard(page, mock):
    resize(page.driver, 390, 844, mobile=True)
    page.open(mock.url)
    page.open_panel("metrics.tracker.example")
    assert page.driver.execute_script("return document.querySelector('#panel').matches(':modal')")
    assert page.one("#panel").size["width"] == 390
    for _ in range(12):
        page.keys(Keys.TAB)
        assert page.driver.execute_script("return document.activeElement === document.body || document.querySelector('#panel').contains(document.activeElement)")
    page.one("#close").click()
    assert page.focused().text == "metrics.tracker.example"


@pytest.mark.parametrize("width", [320, 390, 740, 1024, 1280, 1920])
def test_nothing_sticks_out(page, mock, width):
    mock.world.tell("denied", "web", "a" * 63, "10.201.1.5", ".".join(["long" * 15] * 4), None, None, "dns", "name-not-allowed")
    mock.world.tell("allowed", "web", "b" * 63, "fdc9:1111:2222:3333:4444:5555:6666:7777", None, "2a0e:1111:2222:3333:4444:5555:6666:7777", 65535,
                    count=123456789, open=12345, bytes_out=987_654_321_012_345, bytes_in=987_654_321_012_345)
    mock.world.tell("audit", "n" * 32, None, "10.201.9.9", "big.example", "203.0.113.1", 65535, "udp", "name-not-allowed", count=123456789)
    resize(page.driver, width, 700, mobile=width < 800)
    page.open(mock.url)
    for view in VIEWS:
        page.show(view)
        assert page.driver.execute_script(OUTSIDE) == [], view
    page.show("denied")
    page.one("tbody .target").click()
    page.wait(lambda: page.all("#panel .block"), "no advice")
    assert page.driver.execute_script(OUTSIDE) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(shown, scheme):
    prefer(shown.driver, color_scheme=scheme)
    background = shown.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall("[0-9]+", background)[0]) > 128) == (scheme == "light")
    for view in VIEWS:
        shown.show(view)
        low = {what: ratio for what, ratio in shown.driver.execute_script(CONTRASTS).items() if ratio < 4.5}
        assert low == {}, view
    shown.show("denied")
    shown.open_panel("git.forge.example")
    ratios = shown.driver.execute_script(CONTRASTS)
    assert len(ratios) > 40 and {what: ratio for what, ratio in ratios.items() if ratio < 4.5} == {}


def test_nothing_moves_but_the_data():
    for name in ("page.css", "page.js"):
        with open(os.path.join(PAGE, name), encoding="utf-8") as file:
            assert not re.search(r"animation|transition|requestAnimationFrame|smooth", file.read()), name


# --- what nobody can do to it ---

def test_texts_that_apps_chose_are_only_texts(page, tmp_path):
    with Mock(hostile()) as mock:  # pylint: disable=redefined-outer-name
        page.open(mock.url)
        for view in VIEWS:
            page.show(view)
            page.wait(lambda: len(page.all("tbody tr")) == len(HOSTILE), f"rows are missing in {view}")
        page.show("denied")
        for number in range(len(HOSTILE)):
            page.all("tbody .target")[number].click()
            page.wait(lambda: page.all("#panel .block"), "no advice")
            assert page.one("#panel pre").get_attribute("textContent") in HOSTILE
        assert set(page.driver.execute_script("return [...document.querySelectorAll('tbody .target')].map((target) => target.title)")) == set(HOSTILE)
        page.suggest("web")
        page.wait(lambda: "Left out" in page.text("#panel"), "no suggestion")
        rules = page.one("#panel pre").get_attribute("textContent")
        assert all(line.startswith(("allow = ", "; ")) for line in rules.split("\n")) and len(rules.split("\n")) == 2 * len(HOSTILE)
        assert "allow = **.evil.example" not in rules.split("\n")
        assert page.driver.title == "Sluice" and not page.all("img, svg, iframe, body script, body a:not(nav a)")
        assert page.console() == []


def test_the_filter_and_the_address_are_only_texts(page, mock):
    page.open(mock.url + "#<img src=x onerror=alert(1)>")
    page.filter("<script>alert(1)</script> [ ( * \\")
    page.wait(lambda: page.text("#empty") == "Nothing matches the filter.", "no empty list")
    page.open(mock.url + "#constructor")
    assert len(page.targets()) == 10 and page.console() == []


def test_the_browser_has_nothing_to_complain_about(shown):
    shown.driver.execute_script("""
        window.violations = [];
        document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
    """)
    for view in VIEWS:
        shown.show(view)
    shown.show("denied")
    shown.open_panel("git.forge.example")
    shown.one("#panel .block button").click()
    shown.keys(Keys.ESCAPE)
    assert shown.console() == []
    assert shown.driver.execute_script("return violations") == []
    # The policy is in force, and this test would see what is against it.
    shown.driver.execute_script("const script = document.createElement('script'); script.textContent = 'document.title = \"hurt\"'; document.body.append(script)")
    shown.wait(lambda: shown.driver.execute_script("return violations") == ["script-src-elem"], "violations are not seen")
    assert shown.driver.title == "Sluice" and len(shown.console()) == 1


def test_the_page_is_small_and_asks_nobody_else():
    size = 0
    for name in ("page.html", "page.css", "page.js"):
        with open(os.path.join(PAGE, name), encoding="utf-8") as file:
            text = file.read()
        size += len(text.encode())
        assert not re.search(r"https?:|//[a-z]|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|style=|onclick=\"", text), name
    assert size < 44 * 1024


# --- with a gateway ---

class Relay:
    """A port of this host that leads to one of the gateway's loopback."""

    def __init__(self, namespace, port):
        self.namespace, self.target = namespace, port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = self.namespace.socket()
            if server.connect_ex(("127.0.0.1", self.target)) != 0:
                client.close()
                server.close()
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=pair, daemon=True).start()

    @staticmethod
    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


@pytest.fixture(scope="module")
def real_lab():
    with Lab(POLICY.replace("[network lan]\n", "[network lan]\nmode = audit\n")) as lab:
        yield lab


@pytest.fixture
def real(page, real_lab):  # pylint: disable=redefined-outer-name
    """The page of a real gateway."""
    relay = Relay(real_lab.gw, 9780)
    page.open(relay.url)
    yield page
    page.driver.get("about:blank")
    relay.close()


def test_a_real_gateway_tells_what_was_denied_and_the_rule(real, real_lab):
    app = real_lab.web1
    real_lab.names.add("secret.evil.example", A="45.12.1.66")
    app.resolve("secret.evil.example")
    real.wait(lambda: "secret.evil.example" in real.targets(), "a refused question does not appear", seconds=20)
    app.tcp_result("45.12.1.66", 443)
    real.wait(lambda: "45.12.1.66" in real.targets(), "a refused flow does not appear", seconds=20)
    real.open_panel("45.12.1.66")
    assert real.text("#panel pre") == "allow = 45.12.1.66:443/tcp"
    assert real.console() == []


def test_a_real_gateway_tells_what_was_allowed_with_its_bytes(real, real_lab):
    name, address = real_lab.names.new("https.example")
    real_lab.gw.sysctl(net__netfilter__nf_conntrack_tcp_timeout_close=1)
    real_lab.web1.resolve(name)
    with real_lab.web1.connect(address, 443) as flow:
        flow.sendall(bytes(100_000))
        real.show("apps")
        real.wait(lambda: name in real.targets(), "an allowed flow does not appear", seconds=20)
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, so that the kernel forgets the flow at once
    real.show("live")

    def ended():
        real_lab.gw.run(["conntrack", "-L"])  # it forgets what has expired when somebody looks
        return any(row[1] == "– ended" and row[3].startswith(name) for row in real.rows())
    real.wait(ended, "its end does not appear", seconds=20)
    real.show("apps")

    def sent():
        return next(row for row in real.rows() if row[1].startswith(name))[5]
    real.wait(lambda: sent().endswith(" kB") and int(sent().split()[0]) >= 100, "its bytes do not appear", seconds=20)
    assert real.console() == []


def test_a_real_gateway_in_audit_mode_suggests_what_was_seen(real, real_lab, tmp_path):
    name, address = real_lab.names.new("seen.example")
    real_lab.lan1.resolve(name)
    assert real_lab.lan1.tcp_result(address, 443) == "open"
    real.wait(lambda: name in real.targets(), "what audit mode let pass does not appear", seconds=20)
    real.suggest("lan")
    real.wait(lambda: real.all("#panel pre") and name in real.text("#panel pre"), "no suggestion")
    done = check_policy(tmp_path, "lan", real.text("#panel pre"))
    assert done.returncode == 0 and name in done.stdout, done.stdout + done.stderr


def test_the_page_of_a_real_gateway_survives_its_worker(real, real_lab):
    real_lab.gateway.kill_worker(hold=True)
    real.wait_state("✗ Not connected")
    real_lab.gateway.release()
    real_lab.gateway.wait_healthy()
    real.wait(lambda: real.text("#state") == "✓ Live", "it does not come back", seconds=30)
