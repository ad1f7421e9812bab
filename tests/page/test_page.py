"""What people do on the page: look, plan, compare, deploy, roll back while the planner may go."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.conftest import KEY, NARROW, Opener, Planner, deployed

HARD = '{"tolerance": 0, "gpus": 5, "profile": "llama-3.1-8b-synthetic"}'
SMALL = {"profile": "small", "gpus": 2}


def fill_in(page: Page, **more: str) -> None:
    page.get_by_label("Profile").select_option("small")
    fields = {"Devices": "2", "Context, tokens": "65536", "Seconds a method": "1", **more}
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)


def test_plan_compare_and_deploy(planner: Planner, visit: Opener) -> None:
    page = visit(planner, "#/plan")
    expect(page.get_by_label("Devices", exact=True)).to_have_value("2")
    fill_in(page)
    page.get_by_role("button", name="Plan and compare").click()
    page.locator("#open-best").wait_for()
    methods = page.locator("#found tbody th").all_inner_texts()
    assert methods == ["contiguous", "greedy", "auto", "divided"]
    told = page.locator("#found").inner_text()
    assert told.index("Attention is") < told.index("Makespan")
    assert page.locator("#found .picture svg text", has_text="predicted").count() == 1

    page.locator("#open-best").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Plan ")
    expect(page.locator(".picture svg text", has_text="Layer").first).to_be_visible()
    assert page.locator("main").inner_text().index("Attention is") < 60
    page.get_by_label(re.compile("A layer by itself")).fill("2")
    page.get_by_role("button", name="Show the layer").click()
    expect(page.locator("#layer-picture text", has_text="Layer 2:")).to_be_visible()

    page.get_by_label("Deployment", exact=True).fill("chat")
    page.get_by_role("button", name="Deploy").click()
    page.locator("#ask-yes").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("chat")
    live = planner.world.view("chat")
    assert live["nodes"] == ["node-a", "node-b"]
    assert page.locator("main a").first.inner_text() == live["plan_id"][:12]
    expect(page.get_by_text("Nothing is measured of this generation yet.").first).to_be_visible()


def test_what_is_measured_appears_and_a_roll_back_is_a_generation(
    planner: Planner, visit: Opener
) -> None:
    first, second = deployed(planner, "contiguous", "greedy")
    page = visit(planner, "#/deployments/d")
    rows = page.locator("tbody tr", has=page.get_by_role("link"))
    expect(rows).to_have_count(2)
    expect(page.locator(".picture svg text", has_text="predicted and measured")).to_be_visible()
    assert page.locator(".chart circle.measured").count() == 2
    assert second.whole_step is not None
    gain = second.whole_step.gain
    word = "slower" if gain < 0 else "faster" if gain >= 0.01 else "gains"
    expect(page.locator(".worth")).to_contain_text(word)
    expect(page.get_by_text("Slowest beside its prediction is device")).to_be_visible()
    page.get_by_text("The same as a table").click()
    loads_s = planner.world.view()["measured"]["device_loads_s"]
    ratios = [
        f"{sum(of[device] for of in loads_s) / sum(of.loads_s[device] for of in second.layers):.2f}"
        for device in (0, 1)
    ]
    assert page.locator("details td:last-child").all_inner_texts() == ratios
    page.get_by_role("button", name="Roll back to 1").click()
    page.get_by_role("button", name="Cancel").click()
    assert planner.world.view()["generation"] == 2
    page.get_by_role("button", name="Roll back to 1").click()
    page.locator("#ask-yes").click()
    expect(rows).to_have_count(3)
    view = planner.world.view()
    assert (view["generation"], view["plan_id"]) == (3, first.id)


def drift(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Raised; the worst head's requests are `of` a kind."""
    return {
        "raised": True, "since": "2026-01-01T00:00:00+00:00", "rounds": 4, "heads": 24,
        "heads_drifted": 7, "observed_mean": 0.7, "observed_min": 0.5, "expected_mean": 0.9,
        "reason": None,
        "worst": [{"layer": 1, "head": 5, "expected": 0.91, "observed": 0.52, **of}],
        **more,
    }  # fmt: skip


def test_drift_says_its_cause(planner: Planner, visit: Opener) -> None:
    deployed(planner, "greedy")

    def drifted(route: Route) -> None:
        view = route.fetch().json()
        view["recovery_drift"] = drift({})
        view["decision"] = "planned again: recovery fell short"
        route.fulfill(json=view)

    page = visit(planner)
    page.route(re.compile(r"/deployments/d$"), drifted)
    page.locator("#to-d").click()
    expect(page.get_by_text("7 of 24 heads recover less than the profile promised")).to_be_visible()
    expect(page.get_by_text("planned again: recovery fell short")).to_be_visible()
    expect(page.locator("td", has_text="0.5200")).to_be_visible()


def test_drift_of_an_engine_says_of_which_requests(planner: Planner, visit: Opener) -> None:
    deployed(planner, "greedy")
    of = {"phase": "decode", "context_tokens": 8192}

    def drifted(route: Route) -> None:
        view = route.fetch().json()
        requests = [{**of, "raised": True}, {**of, "context_tokens": 512, "raised": False}]
        view["recovery_drift"] = drift(of, requests=requests)
        route.fulfill(json=view)

    page = visit(planner)
    page.route(re.compile(r"/deployments/d$"), drifted)
    page.locator("#to-d").click()
    said = "recover less than the profile promised in decodes of up to 8,192 tokens."
    expect(page.get_by_text(said)).to_be_visible()
    of_these = page.get_by_role("rowheader", name="decodes of up to 8,192 tokens")
    expect(of_these).to_be_visible()


def test_the_planner_restarts_while_the_page_is_open(planner: Planner, visit: Opener) -> None:
    page = visit(planner)
    expect(page.get_by_text("2 nodes, 2 with a lease")).to_be_visible()
    status = page.locator("#link")
    planner.kill()
    expect(status).to_contain_text("The planner does not answer")
    expect(page.get_by_text("2 nodes, 2 with a lease")).to_be_visible()
    planner.start()
    expect(status).to_contain_text("The planner answers again")
    planner.world.register("node-c", ["a100"])
    expect(page.get_by_text("3 nodes, 3 with a lease")).to_be_visible()


def test_a_solve_goes_on_over_a_restart_and_can_be_stopped(planner: Planner, visit: Opener) -> None:
    page = visit(planner, "#/plan")
    for method in ("contiguous", "greedy", "divided"):
        page.locator(f"#by-{method}").uncheck()
    page.get_by_label("Seconds a method").fill("300")
    page.get_by_text("More of the request, as JSON").click()
    page.get_by_label("Further fields").fill(HARD)
    page.get_by_role("button", name="Plan and compare").click()
    expect(page.locator("#found")).to_contain_text("auto: solving")
    planner.kill()
    expect(page.locator("#link")).to_contain_text("does not answer")
    planner.start()
    expect(page.locator("#link")).to_contain_text("answers again")
    expect(page.locator("#found")).to_contain_text("auto: solving")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#found")).to_contain_text("No plan was made.")


def test_what_is_refused_is_told_as_the_problem_says(shown: Planner, visit: Opener) -> None:
    plan = shown.world.plan(**SMALL)
    page = visit(shown, f"#/plans/{plan.id}")
    page.locator("#on-node-b").uncheck()
    page.get_by_role("button", name="Deploy").click()
    page.locator("#ask-yes").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("they have 1 devices, the plan is for 2")
    page.goto(f"{shown.url}/#/plans/nobody")
    expect(page.get_by_role("alert")).to_contain_text("no plan or solve 'nobody'")
    page.goto(f"{shown.url}/#/plan")
    page.get_by_label("Profile").wait_for()
    page.get_by_text("More of the request, as JSON").click()
    page.get_by_label("Further fields").fill('{"gpus": -1}')
    page.get_by_role("button", name="Plan and compare").click()
    expect(page.get_by_role("alert").first).to_contain_text("gpus")
    page.get_by_label("Further fields").fill("{")
    page.get_by_role("button", name="Plan and compare").click()
    expect(page.get_by_role("alert").first).to_contain_text("this is not JSON")


def test_the_key_is_asked_for_and_kept_for_the_tab_alone(shown: Planner, visit: Opener) -> None:
    page = visit(shown, key=None)
    field = page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(field).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("this service asks for a key")
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nodes")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 1
    assert page.evaluate("localStorage.length") == 0
    assert page.context.cookies() == []
    other = page.context.new_page()
    other.goto(shown.url)
    expect(other.get_by_label("Key", exact=True)).to_be_focused()
    page.get_by_role("button", name="Key given").click()
    page.get_by_role("button", name="Forget it").click()
    assert page.evaluate("sessionStorage.length") == 0


def test_everything_goes_by_keyboard(planner: Planner, visit: Opener) -> None:
    page = visit(planner, "#/plan", key=None)
    expect(page.locator("#key-field")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    page.get_by_label("Profile").wait_for()

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"{name} is not reached by the tabulator")

    tab_to("skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to("profile")
    page.keyboard.type("small")
    tab_to("context")
    page.keyboard.press("Control+a")
    page.keyboard.type("65536")
    page.keyboard.press("Enter")
    page.locator("#open-best").wait_for()
    tab_to("open-best")
    page.keyboard.press("Enter")
    page.locator("#deploy").wait_for()
    tab_to("deployment-name")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-yes")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("main")
    assert planner.world.view("main")["generation"] == 1


VIEWS = {
    "fleet": "",
    "deployment": "#/deployments/d",
    "compare": "#/plan",
    "plans": "#/plans",
    "docs": "docs",
}


def every_view(shown: Planner) -> dict[str, str]:
    return {**VIEWS, "plan": f"#/plans/{shown.world.view()['plan_id']}"}


def settled(page: Page) -> None:
    shows = "main :is(table, #compare, .operation, #deploy) >> visible=true"
    page.locator(shows).first.wait_for()


def test_nothing_is_wider_than_a_phone(shown: Planner, visit: Opener) -> None:
    for name, at in every_view(shown).items():
        page = visit(shown, at, size=NARROW)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0], name
        small = page.evaluate(
            "[...document.querySelectorAll('button, select, input:not([type=checkbox])')]"
            ".filter((e) => e.offsetParent && e.getBoundingClientRect().height < 24).length"
        )
        assert small == 0, name


def test_dark_is_dark_pictures_too(shown: Planner, visit: Opener) -> None:
    lightness = """(place) => {
        const style = getComputedStyle(document.querySelector(place));
        const colour = place === "body" ? style.backgroundColor : style.fill;
        return Math.max(...colour.match(/\\d+/g).slice(0, 3).map(Number));
    }"""
    for scheme, lit in (("light", True), ("dark", False)):
        page = visit(shown, every_view(shown)["plan"], scheme=scheme)
        page.locator(".picture svg").wait_for()
        for place in ("body", ".picture .paper"):
            assert (page.evaluate(lightness, place) > 128) == lit, (scheme, place)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier(shown: Planner, visit: Opener, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for name, at in every_view(shown).items():
        page = visit(shown, at, scheme=scheme)
        settled(page)
        found = axe.run(page).response
        assert found["passes"], name
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert serious == [], name


def test_the_pages_files_allow_nothing_from_elsewhere(shown: Planner) -> None:
    client = shown.world.client
    for path in ("/", "/docs", "/page/app.js", "/page/page.css"):
        answer = client.get(path, headers={"Authorization": ""})
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'"), path
        assert "unsafe" not in policy, path
    assert client.get("/page/../auth.py", headers={"Authorization": ""}).status_code != 200


def test_the_interface_is_told_without_a_network(shown: Planner, visit: Opener) -> None:
    page = visit(shown, "docs")
    page.locator(".operation").first.wait_for()
    told = page.locator("main").inner_text()
    for path, operations in shown.world.client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in told
    planning = page.locator(".operation", has_text="POST /v1/plan").first
    planning.locator("summary").first.click()
    planning.get_by_text("PlanRequest", exact=True).first.click()
    expect(planning.locator("th", has_text="time_limit_s").first).to_be_visible()
