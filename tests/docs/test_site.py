"""The site as `make docs` builds it: it fetches nothing, no link is broken, and no page is wider than its window."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
# a script, picture, style or font of another host
FETCHED = re.compile(
    r"<(?:script|img|iframe|object)[^>]*\s(?:src|data)=\"?(?:https?:)?//|<link[^>]*rel=\"?(?:style|preconnect)[^>]*//"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow  # a minute: the inspector looks at a pair for each page of a model or guide

LOOK = """
<body><script>
const told = (what) => fetch("/told", { method: "POST", body: JSON.stringify(what) });
(async () => {
  for (const width of WIDTHS) for (const page of PAGES) {
    const frame = Object.assign(document.createElement("iframe"), { src: "/" + page });
    frame.style = `width: ${width}px; height: 800px`;
    document.body.append(frame);
    await new Promise((ready) => (frame.onload = ready));
    const inside = frame.contentDocument;
    const wider = inside.documentElement.scrollWidth - frame.clientWidth;
    const broken = [...inside.images].filter((each) => each.complete && !each.naturalWidth).map((each) => each.src);
    await told([page, width, wider, broken]);
    frame.remove();
  }
  told(null);
})();
</script>
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_part_is_there(site):
    names = {str(page.relative_to(site)) for page in pages(site)}
    parts = {"index", "get-started", "collection/models/sere-vae", "collection/guides/faithful", "tutorials/07_flows"}
    parts |= {"reference/ppl_models.inference", "how-it-works/engine", "benchmarks", "names", "limits", "proposition"}
    assert {f"{part}.html" for part in parts} <= names


def test_nothing_is_fetched(site):
    assert [page.name for page in pages(site) if FETCHED.search(page.read_text())] == []


def test_every_link_leads_somewhere(site):
    anchors: dict[Path, set[str]] = {}

    def ids(page: Path) -> set[str]:
        if page not in anchors:
            anchors[page] = {*re.findall(r'\s(?:id|name)="?([^"\s>]+)', page.read_text())}
        return anchors[page]

    broken = []
    for page in pages(site):
        if page.name == "404.html" or "source" in page.relative_to(site).parts:
            continue
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text()):
            address, anchor = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", address):
                continue
            there = (page.parent / address).resolve() if address else page
            if not there.exists() or (anchor and there.suffix == ".html" and anchor not in ids(there)):
                broken.append((str(page.relative_to(site)), link))
    assert broken == []


class _Told(http.server.SimpleHTTPRequestHandler):
    """Serves the site and a page that looks at every other one, and takes down what that tells."""

    def __init__(self, *args, page: str, told: list, done: threading.Event, **options) -> None:
        self.page, self.told, self.done = page, told, done
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        if self.path != "/look":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page.encode())

    def do_POST(self) -> None:
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.done.set() if found is None else self.told.append(found)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def looked(site, tmp_path) -> Iterator[list]:
    """[page, width of the window, how much wider the page is, pictures that are broken], of every page."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    names = [str(page.relative_to(site)) for page in pages(site) if "source" not in page.relative_to(site).parts]
    page = LOOK.replace("PAGES", json.dumps(names)).replace("WIDTHS", "[360, 1440]")
    told, done = [], threading.Event()
    handler = functools.partial(_Told, directory=str(site), page=page, told=told, done=done)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/look"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,900", "--remote-debugging-port=0"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        browser = subprocess.Popen([CHROMIUM, *options, f"--user-data-dir={tmp_path}", address], **quiet)
        try:
            assert done.wait(900), f"{len(told)} of {2 * len(names)} pages looked at"
            yield told
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()


def test_no_page_is_wider_than_its_window(looked):
    assert [(page, width, wider) for page, width, wider, _ in looked if wider > 0] == []
    assert [(page, broken) for page, _, _, broken in looked if broken] == []
