"""Uses the dashboard as a person would, in Chromium. Arguments: its URL, the token, Chromium's path, a folder for screenshots or "".

Every check that fails is a line on standard error, and the exit status is 1."""

import sys
from playwright.sync_api import sync_playwright

url, token, chromium, pictures = sys.argv[1:5]
failures = []


def check(holds, what):
    if not holds:
        failures.append(what)
        print("failed:", what, file=sys.stderr)


UNNAMED = """() => [...document.querySelectorAll('main input, main select, main button, nav a, header button, img')].filter((element) => {
  if (element.tagName === 'IMG') return !element.hasAttribute('alt');
  const label = element.closest('label')?.textContent ?? document.querySelector(`label[for="${element.id}"]`)?.textContent;
  return !(element.getAttribute('aria-label') || element.textContent.trim() || label?.trim());
}).map((element) => element.outerHTML)"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
DRAWN = """() => document.querySelector('main h1')?.textContent === document.querySelector('nav a[aria-current=page]')?.textContent"""
PAGES = ["overview", "routes", "upstreams", "limits", "cache", "certs", "alerts", "config", "explain", "events"]


def picture(page, name):
    if pictures:
        page.screenshot(path=f"{pictures}/{name}.png", full_page=True)


def visit(page, name):
    page.goto(f"{url}#{name}")
    page.wait_for_function(DRAWN)
    page.wait_for_selector("main .card")
    check(page.locator("nav a[aria-current=page]").get_attribute("href") == f"#{name}", f"{name}: the navigation says where we are")
    check(page.evaluate(UNNAMED) == [], f"{name}: {page.evaluate(UNNAMED)} have no name")


def tour(page, kind):
    for name in PAGES:
        visit(page, name)
        check(page.evaluate(OVERFLOW) <= 0, f"{name} is wider than the {kind} screen by {page.evaluate(OVERFLOW)}")
        picture(page, f"{kind}-{name}")


def log_in(page):
    page.goto(url)
    page.get_by_label("Token of").fill("not the token at all")
    page.keyboard.press("Enter")
    page.wait_for_selector("#login-error:not(:empty)")
    picture(page, "login")
    page.get_by_label("Token of").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_selector("main h1")


def drain(page):
    visit(page, "upstreams")
    row = page.locator("main tr", has_text="drain").first
    target = row.locator("code").first.inner_text()
    row.get_by_role("button", name="drain").click()
    page.wait_for_selector("#message.good")
    row = page.locator("main tr", has_text=target)
    row.get_by_text("draining").wait_for()
    check("token from" in row.inner_text(), "it is said who drained the target")
    visit(page, "overview")
    trouble = page.locator("main .card", has_text="What is wrong").locator("li", has_text=target)
    trouble.wait_for()
    check("gateway target up" in trouble.inner_text(), f"what to do is said: {trouble.inner_text()}")
    check(trouble.locator("p").count() == 1, "the cure stands for itself")
    picture(page, "trouble")
    visit(page, "upstreams")
    row = page.locator("main tr", has_text=target)
    row.get_by_role("button", name="back").click()
    row.get_by_role("button", name="drain").wait_for()


def ban(page):
    visit(page, "limits")
    page.get_by_label("Address or prefix").fill("198.51.100.0/24")
    page.get_by_label("For", exact=True).fill("1h")
    page.get_by_label("Why").fill("<b>scraper</b>")
    page.get_by_role("button", name="Ban", exact=True).click()
    row = page.locator("main tr", has_text="198.51.100.0/24")
    row.wait_for()
    check("<b>scraper</b>" in row.inner_text(), "what was typed is text, not markup")
    row.get_by_role("button", name="lift").click()
    page.get_by_text("Nobody is banned.").wait_for()
    page.get_by_label("Address or prefix").fill("nonsense")
    page.get_by_role("button", name="Ban", exact=True).click()
    page.wait_for_selector("#message.bad")


def explain(page):
    visit(page, "explain")
    page.get_by_label("URL", exact=True).fill("http://shop.test/items/1")
    page.get_by_label("Listener").select_option("web")
    page.get_by_role("button", name="Explain the request").click()
    page.get_by_text("goes to the upstream items").wait_for()
    page.get_by_text("Why not the others").wait_for()
    page.get_by_label("Source").fill("192.0.2.1:4000")
    page.get_by_label("Destination").fill("198.51.100.1:443")
    page.get_by_role("button", name="Explain the packet").click()
    page.get_by_text("verdict", exact=True).wait_for()
    picture(page, "explained")


def purge(page):
    visit(page, "cache")
    page.locator("select[name=kind]").select_option("prefix")
    page.get_by_label("What").fill("/items/")
    page.get_by_role("button", name="Purge").click()
    page.wait_for_selector("#message.good")


def by_keyboard(page):
    visit(page, "overview")
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Tab")
    check(page.evaluate("() => document.activeElement.className") == "skip", "the first stop of the keyboard skips to the content")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"])
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light", ignore_https_errors=True)
    page = context.new_page()
    page.set_default_timeout(15000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    outside = []
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(url) else None)
    try:
        log_in(page)
        check("not the token" not in page.content(), "what was typed is not kept")
        tour(page, "wide")
        drain(page)
        ban(page)
        explain(page)
        purge(page)
        by_keyboard(page)
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        tour(page, "phone")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Token of").wait_for()
        page.goto(f"{url}#config")
        check(page.locator("#login").is_visible(), "after logging out there is nothing to see")
        # Answers of 400 and 401 that were asked for are told by the browser as well.
        said = [text for text in said if "Failed to load resource" not in text]
        check(said == [], f"the console says {said}")
        check(outside == [], f"the page asked elsewhere: {outside}")
    except Exception as error:
        check(False, f"{error}")
        picture(page, "failed")
    finally:
        browser.close()

sys.exit(1 if failures else 0)
