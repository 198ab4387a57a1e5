"""A real Chromium goes through every page: no error, nothing from elsewhere, by keyboard and on a phone.

Runs where playwright is installed and a Chromium is on the PATH. With AXE_JS=path/to/axe.min.js every page is
also checked by axe-core; with SHOTS=folder each is drawn into a picture to look at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.home import find_home
from serving import Live
from test_dashboard import PAGES, dashboard, seed

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (found for n in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(n))), ""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")]
SIZES = {"desk": (1200, 900), "phone": (375, 740)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = find_home(tmp_path_factory.mktemp("shown"))
    seed(home)
    with dashboard(home) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A page with what went wrong on it."""

    def __init__(self, browser: Any, server: Live, size: str = "desk", scheme: str = "light") -> None:
        width, height = SIZES[size]
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.url = server.url
        self.faults: list[str] = []
        self.page.on(
            "console", lambda m: self._note("console", m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda e: self._note("error", str(e)))
        self.page.on("request", lambda r: self._request(r.url))

    def _note(self, kind: str, text: str) -> None:
        self.faults.append(f"{kind}: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.url, "data:")):
            self._note("request elsewhere", url)

    def go(self, path: str) -> Any:
        self.page.goto(self.url + path, wait_until="load")
        return self.page


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_shows_without_a_fault(browser: Any, server: Live, size: str, scheme: str) -> None:
    watched = Watched(browser, server, size, scheme)
    for path in PAGES:
        page = watched.go(path)
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{path} has to be scrolled sideways on a {size}"
        if axe := os.environ.get("AXE_JS"):
            watched.faults += [f"{path}: {fault}" for fault in serious(page, Path(axe))]
        if shots := os.environ.get("SHOTS"):
            name = path.strip("/").replace("/", "-").replace("?", "-") or "today"
            page.screenshot(path=f"{shots}/{size}-{scheme}-{name}.png", full_page=True)
    assert watched.faults == []
    watched.page.close()


def serious(page: Any, axe: Path) -> list[str]:
    page.evaluate(axe.read_text("utf-8"))  # evaluated by the tool: the page's own policy forbids it
    found = page.evaluate("axe.run()")
    return [
        f"{v['id']}: {[n['html'][:200] for n in v['nodes']]}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def test_plots_are_drawn(browser: Any, server: Live) -> None:
    watched = Watched(browser, server)
    assert watched.go("/trends").locator(".uplot canvas").count() == 1
    assert watched.go("/nights/2026-11-20").locator(".uplot canvas").count() == 1
    assert watched.faults == []
    watched.page.close()


def test_a_search_answers_while_it_is_typed(browser: Any, server: Live) -> None:
    watched = Watched(browser, server)
    page = watched.go("/memory")
    page.get_by_label("Find what was said").press_sequentially("what is my cat called")
    page.locator("#hits .turn").first.wait_for()
    assert "Rex" in page.locator("#hits").inner_text()
    assert page.url.endswith("/memory")  # the page itself stayed
    assert watched.faults == []
    watched.page.close()


def test_a_turn_is_kept_out_and_forgotten_by_keyboard_alone(browser: Any, server: Live) -> None:
    memory = server.service.memory
    said = memory.remember(memory.new_conversation(), "user", "The keyboard is enough.")
    watched = Watched(browser, server)
    page = watched.go("/")
    turn = page.locator(f"#turn-{said.id}")
    turn.get_by_role("button", name="Keep out of nights").focus()
    page.keyboard.press("Enter")
    turn.get_by_role("button", name="May be learned").wait_for()
    assert memory.pick([said.id])[0].tags == {"no-train"}
    turn.get_by_role("link", name="Forget").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/forget")
    page.get_by_role("button", name="Forget for ever").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/")
    assert "The keyboard is enough." not in page.content()
    assert watched.faults == []
    watched.page.close()


def test_a_pack_is_worn_compared_and_rolled_back_by_clicks(browser: Any, server: Live) -> None:
    watched = Watched(browser, server)
    page = watched.go("/packs")
    page.get_by_role("link", name="Wear one").click()
    page.get_by_role("button", name="Wear it").click()
    page.wait_for_url("**/packs")
    assert server.service.store.active() == ("one",)
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("Ask both").fill("Who are you?")
    page.get_by_label("Two").select_option("nano:two")
    page.get_by_role("button", name="Ask").click()
    page.locator("#answers section").nth(1).wait_for()
    page.get_by_role("link", name="Nights").click()
    page.get_by_role("link", name="Roll back").click()
    page.get_by_role("button", name="Roll back").click()
    page.wait_for_url("**/packs")
    assert server.service.store.active() == ()
    assert watched.faults == []
    watched.page.close()


def test_what_others_could_inject_is_blocked(browser: Any, server: Live) -> None:
    watched = Watched(browser, server)
    page = watched.go("/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.evil = 1\">')")
    page.evaluate("fetch('https://evil.example/').catch(() => 0)")
    assert page.evaluate("window.evil") is None
    assert any("Content Security Policy" in fault for fault in watched.faults)  # control: it is the policy
    watched.page.close()
