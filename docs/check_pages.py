"""Visit every built page in a headless browser, with the widths of a phone and a desktop screen.

`make check-docs` runs this script. It fails with a list of errors if a link within the site is
broken, the browser console has errors (such as requests to other sites, which are blocked), an
image is missing, or a page is cut off or scrolls horizontally.
"""

import argparse
import base64
import itertools
import shutil
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from selenium import webdriver

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
NO_PAGES = ("_static", "_sources", "_downloads", "_images")

LOOK = """
const done = arguments[0];
const page = document.documentElement;
const images = [...document.images];
images.forEach(image => image.loading = "eager");
const name = e => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") || ""}"> ` +
    (e.textContent || e.getAttribute("src") || "").trim().replace(/\\s+/g, " ").slice(0, 60);
const scrolls = e => e.closest("pre, .pst-scrollable-table-container, .formula, .output_html");
const box = e => e.getBoundingClientRect();
const cut = e => box(e).width && box(e).right > page.clientWidth + 1 && !scrolls(e);
Promise.all(images.map(image => image.decode().catch(() => 0))).then(() => done({
    canonical: document.querySelector("link[rel=canonical]")?.href,
    text: document.body.textContent.replace(/\\s+/g, ""),
    targets: [...document.querySelectorAll("[id]")].map(e => e.id),
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    missing: images.filter(image => !image.naturalWidth).map(name),
    invisible: [...document.querySelectorAll("article :is(img, math)")]
        .filter(e => !box(e).width || !box(e).height).map(name),
    cut: [...document.querySelectorAll("article *")]
        .filter(e => cut(e) && !cut(e.parentElement)).map(name),
    sideways: page.scrollWidth - page.clientWidth,
}));
"""


class Quiet(SimpleHTTPRequestHandler):
    """A file server without a log."""

    def log_message(self, *args):
        """Do not log."""


def serve(root):
    """Serve a folder on a free port and return the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def open_browser(profile):
    """Start Chromium with an empty profile and without access to other hosts."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        sys.exit("Chromium was not found; run: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def visit(browser, address, size):
    """Open a page in a window of the given size and return its contents."""
    width, height = SIZES[size]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": size == "phone"},
    )
    browser.get(address)
    seen = browser.execute_async_script(LOOK)
    logged = browser.get_log("browser")
    seen["errors"] = [entry["message"] for entry in logged if entry["level"] == "SEVERE"]
    return seen


def faults(seen):
    """Yield the errors of a displayed page."""
    yield from (f"console: {message}" for message in seen["errors"])
    yield from (f"image not loaded: {image}" for image in seen["missing"])
    yield from (f"invisible: {figure}" for figure in seen["invisible"])
    yield from (f"cut off: {element}" for element in seen["cut"])
    if seen["sideways"]:
        yield f"scrolls horizontally by {seen['sideways']} pixels"


def is_broken(root, pages, path, fragment):
    """Return whether a link to a file of the site, or to a target on one of its pages, is dead."""
    if path == "" or path.endswith("/"):
        path += "index.html"
    if path not in pages:
        return not (root / path).is_file()
    target, _, text = fragment.partition(":~:text=")
    if target and target not in pages[path]["targets"]:
        return True
    # The links in scikit-learn's diagrams have the form "name,-type".
    return "".join(text.replace(",-", "").split()) not in pages[path]["text"]


def main(root, screenshots=None):
    """Visit all pages, print their errors and return the number of errors."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.html"))
    names = [name for name in names if not name.startswith(NO_PAGES)]
    home, wrong, pages, elsewhere = serve(root), [], {}, set()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = open_browser(profile)
        for size, name in itertools.product(SIZES, names):
            pages[name] = visit(browser, home + name, size)
            wrong += [f"{name} ({size}): {fault}" for fault in faults(pages[name])]
            if screenshots:
                screenshots.mkdir(parents=True, exist_ok=True)
                picture = screenshots / f"{name.replace('/', '-').removesuffix('.html')}-{size}.png"
                whole = {"captureBeyondViewport": True}
                shot = browser.execute_cdp_cmd("Page.captureScreenshot", whole)
                picture.write_bytes(base64.b64decode(shot["data"]))
        browser.quit()

    for name, page in pages.items():
        # Links in the diagrams of estimators start with the address of the published site.
        site = (page["canonical"] or home).removesuffix(name)
        for link in dict.fromkeys(page["links"]):
            if link.startswith((home, site)):
                path, _, fragment = unquote(link.removeprefix(home).removeprefix(site)).partition(
                    "#"
                )
                if is_broken(root, pages, path.partition("?")[0], fragment):
                    wrong.append(f"{name}: broken link: {link}")
            elif link.startswith("http"):
                elsewhere.add(link)

    print("Links to other sites, not visited:", *sorted(elsewhere), sep="\n  ")
    print(f"{len(names)} pages, {len(SIZES)} widths, {len(wrong)} errors", *wrong, sep="\n  ")
    return len(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=Path("docs/_build/html"))
    parser.add_argument("--screenshots", type=Path, metavar="DIR")
    sys.exit(main(**vars(parser.parse_args())) > 0)
