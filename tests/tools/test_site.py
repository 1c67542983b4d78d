"""The site of executed notebooks, opened in headless Chromium."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import execute, site

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, DESKTOP = 390, 1280  # pixels
SOURCE = """
import matplotlib.pyplot as plt
from dlapps.display import answer, show_source, show_table
show_source(show_table)
show_table([{f"a long title of column {i}": i / 7 for i in range(12)}])
figure, axes = plt.subplots(figsize=(12, 2))
answer(r"As $x_1^2 \\le 1$ shows.")
"""
FORMULA = r"""
# Practical 1 · Tiny

Inline $\bar{w} * x$, and a long one of its own:

$$ \underbrace{\bar{w} * x}_{\text{light}} + \sum_{i=1}^{n} \max\bigl(0,\ 1 - y_i (w^\top x_i + b)
\bigr)^2 + \mathbb{E}_z[\log(1 - D(G(z)))] + \frac{1}{2C} \|W\|^2 + x_1 + x_2 + x_3 + x_4 + x_5 $$
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as driver:
        if not found and not Path(driver.chromium.executable_path).exists():
            pytest.skip(f"no Chromium: none of {', '.join(BROWSERS)} is on PATH")
        browser = driver.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["tiny", "committed", "build/quick", "build/full"])
def pages(request, tmp_path_factory):
    """Build a site and return the folder with its pages.

    Of a tiny notebook that is executed here, of the committed ones, which have all formulas but no
    outputs, and of those that an earlier run left executed.
    """
    folder = tmp_path_factory.mktemp("site")
    notebooks = folder / "notebooks"
    if request.param == "tiny":
        cells = [new_markdown_cell(FORMULA), new_code_cell(SOURCE)]
        (folder / "1_tiny.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)), "utf-8")
        execute.execute(folder / "1_tiny.ipynb", notebooks, execute.Options("quick"))
    else:
        notebooks = ROOT / request.param.replace("committed", "notebooks")
        if not list(notebooks.glob("*.ipynb")):
            pytest.skip(f"{request.param} holds no executed notebook")
    site.build(notebooks, folder / "site")
    return folder / "site"


class Visit:
    """A page of the browser without network; `errors` collects what the console complains of."""

    def __init__(self, browser, width, **options):
        self.page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        self.errors = []
        # The badges are the only thing that a page asks of another server.
        badge = '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"/>'
        self.page.route(
            "https://colab.research.google.com/assets/colab-badge.svg",
            lambda route: route.fulfill(body=badge, content_type="image/svg+xml"),
        )
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: message.type == "error" and self.errors.append(message.text),
        )

    def open(self, path):
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("networkidle")

    def broken_images(self):
        return self.page.evaluate(
            """async () => {
                const images = [...document.images];
                images.forEach(image => image.loading = "eager");
                await Promise.all(images.map(image => image.decode().catch(() => {})));
                return images.filter(i => !i.naturalWidth || !i.alt && !i.src).map(i => i.src);
            }"""
        )

    def too_wide(self):
        """Return what reaches beyond the screen and is not scrolled alone."""
        return self.page.evaluate(
            """() => {
                const article = document.querySelector("article");
                const scrolled = element => element !== article && (
                    ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
                    || scrolled(element.parentElement));
                const wide = [...article.querySelectorAll("h1, h2, h3, p, img, math, pre, table")]
                    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolled(e));
                const page = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
                return [...page, ...wide.map(e => e.outerHTML.slice(0, 200))];
            }"""
        )


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_page_is_whole_and_no_wider_than_the_screen(browser, pages, width):
    visit = Visit(browser, width)
    paths = [pages / "index.html", *sorted((pages / "notebooks").glob("*.html"))]
    assert len(paths) > 1
    for path in paths:
        visit.open(path)
        assert visit.broken_images() == [], path.name
        assert visit.too_wide() == [], path.name
        assert visit.errors == [], path.name
        assert visit.page.locator("h1").count() >= 1, path.name
        shown = visit.page.locator("article").inner_text()
        assert "$$" not in shown and "\\frac" not in shown, f"{path.name}: a formula as source"
        size = visit.page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")
        assert size >= 14


def test_one_gets_from_page_to_page(browser, pages):
    visit = Visit(browser, DESKTOP)
    visit.open(pages / "index.html")
    first = sorted((pages / "notebooks").glob("*.html"))[0]
    visit.page.locator(f'.sidebar-tree a[href$="{first.name}"]').click()
    assert visit.page.url == first.as_uri()
    visit.page.locator(".sidebar-brand").click()
    assert Path(visit.page.url.split("#")[0]).name == "index.html"
    # On a phone the list of pages is behind a button.
    visit = Visit(browser, PHONE)
    visit.open(pages / "index.html")
    link = visit.page.locator(f'.sidebar-tree a[href$="{first.name}"]')
    visit.page.locator("label.nav-overlay-icon:visible").click()
    link.click()
    assert visit.page.url == first.as_uri()
    assert visit.errors == []


@pytest.mark.parametrize("pages", ["tiny"], indirect=True)
def test_a_notebook_s_outputs_are_all_there(browser, pages):
    visit = Visit(browser, PHONE)
    visit.open(pages / "notebooks" / "1_tiny.html")
    article = visit.page.locator("article")
    assert article.locator("math").count() == 3, "one of them in an answer"
    assert article.locator("math mfrac").count() == 1
    assert article.locator("table tr").count() == 2
    assert article.locator("img").count() == 1
    assert "def show_table" in article.locator(".cell_output").first.inner_text()
    assert "Answer. As " in article.inner_text()
    box = article.locator("math").nth(1).bounding_box()
    assert box["height"] > 20 and box["x"] < PHONE
    wide = article.locator("table").first.bounding_box()
    assert 0 <= wide["x"] < PHONE < wide["width"], "it is scrolled"
