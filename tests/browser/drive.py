#!/usr/bin/env python3
"""Drives the page in headless Chromium as a person would, and takes pictures.

    drive.py URL OUT [--message TEXT] [--expect TEXT]... [--second MODEL] [--pull NAME] [--gpu]

Chats, switches the model (--second) and chats again, watches the figures move (--gpu: also a GPU's), pulls (--pull), stops
an answer, walks the page by keyboard; then light and dark, wide and narrow: OUT/{light,dark}-{wide,narrow-chat,narrow-server}.png.
Exits 1 when something is not as it has to be, also when the page logged an error, asked another host for anything, or is wider
than the window.

run.sh starts it, with playwright and a server.
"""
import argparse
import os
import sys
from urllib.parse import urlparse

from playwright.sync_api import expect, sync_playwright

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("out")
parser.add_argument("--message", default="What is the capital of France?")
parser.add_argument("--expect", action="append", default=[])
parser.add_argument("--second")
parser.add_argument("--pull")
parser.add_argument("--gpu", action="store_true")
parser.add_argument("--timeout-s", type=float, default=120)
args = parser.parse_args()
os.makedirs(args.out, exist_ok=True)
MS = args.timeout_s * 1000
problems = []


def watch(page):
    page.on("console", lambda m: problems.append("console: " + m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: problems.append("error: " + str(e)))
    page.on("request", lambda r: problems.append("request to elsewhere: " + r.url)
            if r.url.startswith("http") and urlparse(r.url).netloc != urlparse(args.url).netloc else None)
    page.on("dialog", lambda d: problems.append("dialog: " + d.message))


def chat(page, text):
    before = page.locator(".message.assistant").count()
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    answer = page.locator(".message.assistant").nth(before)
    expect(answer).to_be_visible(timeout=MS)
    expect(page.locator(".writing")).to_have_count(0, timeout=MS)
    failed = answer.locator(".failed")
    if failed.count():
        problems.append("the answer failed: " + failed.first.inner_text())
    return answer.inner_text()


def check_layout(page, what):
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    if wide > window:
        problems.append(f"{what}: {wide} pixels in a window of {window}")


# Contrast of every text with what is behind it, by WCAG's formula.
CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest("button:disabled")) continue;
    if (e.classList.contains("hidden") || ["SCRIPT", "STYLE", "OPTION"].includes(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) bad.push(`${e.tagName}.${e.className} "${e.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


def picture(page, name):
    page.wait_for_timeout(300)
    check_layout(page, name)
    problems.extend(f"{name}: contrast {text}" for text in page.evaluate(CONTRAST))
    page.screenshot(path=os.path.join(args.out, name + ".png"))


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    page = context.new_page()
    watch(page)
    page.goto(args.url, timeout=MS)
    expect(page.locator("#health")).to_have_class("good", timeout=MS)
    expect(page.locator("#model option")).not_to_have_count(0)
    models = page.locator("#model option").evaluate_all("options => options.map(o => o.value)")
    print("models:", ", ".join(models))
    text = chat(page, args.message)
    print("answer:", text.replace("\n", " | ")[:300])
    for wanted in args.expect:
        if wanted not in text:
            problems.append(f"the answer does not say '{wanted}'")
    if "tokens" not in text:
        problems.append("no figures under the answer")
    expect(page.locator("#status section").first.locator(".bar").first).to_be_visible(timeout=MS)
    if args.gpu:  # the tier in a GPU's memory: what lies there, and what of it was found there
        for wanted in ("On GPUs", "GPU slots", "GPU, other", "GPU slots, of late", "Upload per token", "µs each", "Vulkan1",
                       "98 % of the experts needed were there"):
            expect(page.locator("#status")).to_contain_text(wanted, timeout=MS)
    before = page.locator("#status").inner_text()
    if args.second:
        page.select_option("#model", args.second)
        print("second:", chat(page, args.message).replace("\n", " | ")[:300])
        expect(page.locator("#status h2", has_text=args.second)).to_be_visible(timeout=MS)
    if args.second and args.gpu:  # held whole: there is nothing to say of reads and hits
        held = page.locator("#status section", has=page.locator("h2", has_text=args.second))
        expect(held).to_contain_text("Tokens per second", timeout=MS)
        if "Evictions" in held.inner_text():
            problems.append("figures of paging for a model that is held whole")
    page.wait_for_function("before => document.querySelector('#status').innerText !== before", arg=before, timeout=MS)
    print("figures:", page.locator("#status").inner_text().replace("\n", " | ")[:900])
    # An answer is stopped, and what comes after it works.
    page.get_by_label("Message", exact=True).fill("Count to one hundred.")
    page.keyboard.press("Enter")
    expect(page.locator("#send")).to_have_text("Stop", timeout=MS)
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    expect(page.locator("#send")).to_have_text("Send", timeout=MS)
    if args.pull:
        page.locator("#add").click()
        page.locator("#pull-name").fill(args.pull)
        page.keyboard.press("Enter")
        expect(page.locator("#pull-state")).to_have_text("success", timeout=MS)
        page.screenshot(path=os.path.join(args.out, "pull.png"))
        page.keyboard.press("Escape")
        if args.pull not in page.locator("#model option").evaluate_all("o => o.map(o => o.value)"):
            problems.append("what was pulled is not in the list")
    picture(page, "light-wide")
    page.emulate_media(color_scheme="dark")
    picture(page, "dark-wide")
    page.locator("#theme").click()
    if page.evaluate("document.documentElement.classList.contains('dark')"):
        problems.append("the theme button does nothing")
    page.evaluate("localStorage.removeItem('theme')")
    # Everything that can be used can be reached by keyboard, and says what it is.
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    for wanted in ("model", "add", "fresh", "theme", "prompt", "send"):
        if wanted not in reached:
            problems.append(f"#{wanted} is not reached by Tab")
    unnamed = page.evaluate("""[...document.querySelectorAll("button, input, select, textarea")].filter(e =>
        !(e.textContent.trim() || e.getAttribute("aria-label") || (e.labels && e.labels.length))).map(e => e.id)""")
    problems.extend(f"#{name} has no name" for name in unnamed)
    page.set_viewport_size({"width": 390, "height": 780})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("dispatchEvent(new Event('resize'))")
        page.locator("#tab-chat").click()
        picture(page, scheme + "-narrow-chat")
        page.locator("#tab-status").click()
        picture(page, scheme + "-narrow-server")
    browser.close()

for problem in dict.fromkeys(problems):
    print("PROBLEM", problem)
sys.exit(1 if problems else 0)
