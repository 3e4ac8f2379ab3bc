"""The status page as a person has it open: in a real browser, against a real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page, expect

from recovery import disabling
from recovery.events import ProbeReport, TargetRef
from recovery.observations import record
from tests.fleet import Fleet
from tests.http.conftest import TOKEN, Site
from tests.servers import RedisServer
from tests.stack import Stack

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}


def observe(stack: Stack, *, healthy: bool, times: int = 1) -> None:
    failure, summary = (None, "") if healthy else ("connection_error", "connection refused")
    report = ProbeReport(
        healthy=healthy, failure_type=failure, summary=summary, figures={"connected_clients": 12}
    )
    for number in range(times):
        record(stack.control, stack.policy, TargetRef("redis"), report, latency_ms=1.5 + number)


def sign_in(page: Page, site: Site, token: str = TOKEN) -> None:
    page.goto(f"{site.url}/login")
    page.get_by_label("Your name").fill("eva")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def is_live(page: Page) -> None:
    expect(page.locator("#live")).to_contain_text("live")


def test_a_target_that_fails_and_comes_back_is_seen_without_a_reload(
    stack: Stack, site: Site, page: Page
) -> None:
    observe(stack, healthy=True, times=5)
    page.goto(site.url)
    is_live(page)
    expect(page.locator("#headline")).to_contain_text("The one target is well.")
    row = page.get_by_role("row", name=re.compile("default"))
    expect(row).to_contain_text("connected clients 12")
    expect(row.locator("svg path")).to_have_count(1)

    observe(stack, healthy=False, times=3)

    expect(page.locator("#headline")).to_contain_text("1 of 1 target needs attention.")
    card = page.locator("#attention .card")
    expect(card).to_contain_text("redis/default")
    expect(card).to_contain_text("connection error: connection refused")
    expect(row.locator("svg path.x")).to_have_count(1)
    observe(stack, healthy=True, times=4)
    expect(page.locator("#headline")).to_contain_text("The one target is well.")
    expect(card).to_have_count(0)


def test_a_recovery_is_approved_on_the_page_and_its_steps_and_figures_are_read_there(
    stack: Stack, fleet: Fleet, site: Site, page: Page
) -> None:
    fleet.start()
    stack.exhaust_clients()
    sign_in(page, site)
    is_live(page)
    identity = stack.trigger("clients_exhausted", strategy="reconnect", require_approval=True)
    card = page.locator("#approvals .card")
    expect(card).to_contain_text("redis/default reconnect")

    card.get_by_label("Why").fill("seen it")
    card.get_by_role("button", name="Approve").click()

    expect(page.locator("#timeline .result").first).to_contain_text("recovered")
    expect(page.locator("#approvals .card")).to_have_count(0)
    record_ = stack.concluded(identity)
    assert (record_.decided_by, record_.decided_why) == ("eva", "seen it")
    page.locator("#timeline details summary").first.click()
    more = page.locator("#timeline details").first
    expect(more).to_contain_text("stale connections killed")
    expect(more).to_contain_text("by eva: seen it")
    expect(more.get_by_role("table")).to_contain_text("clients exhausted")
    page.goto(f"{site.url}/recoveries/{identity}")
    expect(page.get_by_role("heading", level=2)).to_contain_text("redis/default: reconnect")


def test_a_denial_on_the_page_counts_and_a_second_word_is_told_no(
    stack: Stack, fleet: Fleet, site: Site, page: Page
) -> None:
    fleet.start()
    identity = stack.trigger("clients_exhausted", strategy="reconnect", require_approval=True)
    sign_in(page, site)
    page.locator("#approvals .card").wait_for()
    own = {"origin": site.url, "accept": "application/json"}
    site.client.post("/login", data={"token": TOKEN, "name": "max"}, headers=own)

    page.get_by_role("button", name="Deny").click()

    expect(page.locator("#timeline .result").first).to_contain_text("denied")
    said = site.client.post(f"/decide/{identity}", data={"decision": "approve"}, headers=own)
    assert (said.status_code, said.json()["error"]) == (409, "not_pending")
    assert stack.concluded(identity).decided_by == "eva"


def test_whoever_is_not_signed_in_is_told_how_to_decide(
    stack: Stack, fleet: Fleet, site: Site, page: Page
) -> None:
    fleet.start()
    identity = stack.trigger("clients_exhausted", strategy="reconnect", require_approval=True)
    page.goto(site.url)

    card = page.locator("#approvals .card")
    expect(card).to_contain_text(f"recovery approve {identity[:8]}")
    expect(card.get_by_role("button", name="Approve")).to_be_hidden()
    expect(page.get_by_role("link", name="Sign in", exact=True)).to_be_visible()


def test_a_wrong_token_is_not_signed_in(site: Site, page: Page) -> None:
    sign_in(page, site, token="not the token at all")

    expect(page.get_by_role("alert")).to_contain_text("not known here")
    expect(page.get_by_label("Your name")).to_have_value("eva")


def test_a_control_plane_that_is_away_is_said_and_the_page_comes_back_by_itself(
    stack: Stack, site: Site, page: Page, control_redis: RedisServer
) -> None:
    observe(stack, healthy=True)
    page.goto(site.url)
    is_live(page)

    control_redis.kill()

    expect(page.locator("#headline")).to_contain_text("The control plane cannot be reached.")
    expect(page.get_by_role("row", name=re.compile("default"))).to_be_visible()
    control_redis.start()
    expect(page.locator("#headline")).to_contain_text("The one target is well.", timeout=30_000)


def test_a_page_opened_while_nothing_can_be_seen_is_whole_afterwards(
    stack: Stack, site: Site, page: Page, control_redis: RedisServer
) -> None:
    observe(stack, healthy=True)
    control_redis.kill()
    page.goto(site.url)
    expect(page.locator("#headline")).to_contain_text("The control plane cannot be reached.")

    control_redis.start()

    row = page.get_by_role("row", name=re.compile("default"))
    expect(row).to_contain_text("connected clients", timeout=30_000)


def test_a_server_that_was_restarted_is_found_again_with_what_is_new(
    stack: Stack, serve: Callable[..., Site], page: Page
) -> None:
    observe(stack, healthy=True)
    site = serve()
    page.goto(site.url)
    is_live(page)
    port = site.port
    site.running.should_exit = True
    expect(page.locator("#live")).to_contain_text("reconnecting")
    observe(stack, healthy=False, times=3)

    serve(port=port)

    is_live(page)
    expect(page.locator("#headline")).to_contain_text("1 of 1 target needs attention.")


def test_targets_and_recoveries_are_filtered_and_the_address_remembers_it(
    stack: Stack, site: Site, page: Page
) -> None:
    observe(stack, healthy=True)
    page.goto(site.url)
    row = page.locator("#targets tr[data-s]")
    expect(row).to_be_visible()

    page.get_by_label("Name contains").fill("no such target")

    expect(row).to_be_hidden()
    expect(page.locator("#count")).to_have_text("0 of 1")
    page.reload()
    expect(page.get_by_label("Name contains")).to_have_value("no such target")
    expect(row).to_be_hidden()
    page.get_by_label("Name contains").fill("DEF")
    page.get_by_label("State").select_option("well")
    expect(row).to_be_visible()
    page.get_by_label("State").select_option("unwell")
    expect(row).to_be_hidden()


def test_the_page_is_whole_without_its_script(stack: Stack, site: Site, browser: Browser) -> None:
    observe(stack, healthy=True, times=3)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()

    page.goto(site.url)

    expect(page.locator("#headline")).to_contain_text("The one target is well.")
    expect(page.get_by_role("row", name=re.compile("default"))).to_contain_text("3.5 ms")
    context.close()


def test_what_is_no_failure_is_not_shown_as_one(stack: Stack, site: Site, page: Page) -> None:
    scope = disabling.scope_of(stack.policy, "redis", None)
    disabling.disable(stack.control, stack.policy, scope, by="eva", reason="night", seconds=60)
    disabling.enable(stack.control, stack.policy, scope, by="eva")

    page.goto(site.url)

    expect(page.locator("#timeline .result").first).to_have_text("enabled")
    expect(page.locator("#timeline .result.good")).to_have_text("enabled")
    expect(page.locator("#timeline .result.refused")).to_have_text("disabled")
    expect(page.locator("#timeline .result.bad")).to_have_count(0)


def test_the_page_fits_a_phone_in_both_colours_and_has_contrast(
    stack: Stack, site: Site, browser: Browser
) -> None:
    observe(stack, healthy=False, times=3)
    for colours in ("light", "dark"):
        context = browser.new_context(color_scheme=colours, **PHONE)
        page = context.new_page()
        page.goto(site.url)
        expect(page.locator("#attention .card")).to_be_visible()

        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        poor = page.evaluate(POOR_CONTRAST)
        assert poor == [], colours
        context.close()


POOR_CONTRAST = """
() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour.startsWith("rgb(")) return rgb(colour);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([element.outerHTML.slice(0, 80), ratio]);
  }
  return poor;
}
"""


def test_everything_is_reached_by_the_keyboard_and_has_a_name(
    stack: Stack, fleet: Fleet, site: Site, page: Page
) -> None:
    fleet.start()
    stack.trigger("clients_exhausted", strategy="reconnect", require_approval=True)
    sign_in(page, site)
    page.locator("#approvals .card").wait_for()

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the targets")).to_be_focused()
    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.textContent || document.activeElement.name")
        )
    assert any("Approve" in name for name in seen)
    assert any("Deny" in name for name in seen)
    for role in ("banner", "main", "contentinfo", "search"):
        expect(page.get_by_role(role)).to_have_count(1)
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, button')]"
        ".filter((e) => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel)"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []
    expect(page.locator("#headline")).to_have_attribute("aria-live", "polite")


def test_what_a_probe_says_is_text_and_never_markup(stack: Stack, site: Site, page: Page) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    report = ProbeReport(
        healthy=False, failure_type="connection_error", summary=nasty, figures={nasty: 1}
    )
    for _ in range(3):
        record(stack.control, stack.policy, TargetRef("redis"), report, latency_ms=1)
    page.goto(site.url)

    expect(page.locator("#attention .card")).to_contain_text(nasty)
    assert page.locator("img").count() == 0
