"""`measured`: a page as a headless browser lays it out; `CHROMIUM`: that browser, None where there is none."""

import html
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = """
f.onload = () => {
  const page = f.contentDocument, width = f.contentWindow.innerWidth;
  const held = e => { for (let p = e.parentElement; p; p = p.parentElement)
    if (f.contentWindow.getComputedStyle(p).overflowX == "auto") return true; return false; };
  const out = [...page.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > width + 1 && !held(e));
  const split = [...page.querySelectorAll("th, td")].filter(e => {
    const word = e.textContent.trim(), around = page.createRange();
    around.selectNodeContents(e);
    return /^\\w{1,8}$/.test(word) && new Set([...around.getClientRects()].map(r => r.top)).size > 1; });
  const broken = [...page.images].filter(i => !i.complete || !i.naturalWidth);
  const told = document.createElement("p");
  told.id = "told";
  told.textContent = [width, page.documentElement.scrollWidth, out.length + split.length, broken.length,
    f.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    f.contentWindow.getComputedStyle(page.body).backgroundColor.replaceAll(" ", "")].join(" ");
  document.body.append(told);
};
"""


def measured(page: str, width: int, dark: bool, folder: Path) -> tuple[int, int, int, int, bool, str]:
    """(width of the screen, of the page, elements beyond it and broken words, broken images, is dark, background)."""
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><meta charset="utf-8"><body style="margin:0"><iframe id="f" srcdoc="{html.escape(page)}" '
        f'style="border:0;width:{width}px;height:900px"></iframe><script>{SCRIPT}</script>',
        encoding="utf-8",
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000", scheme]
    words = [
        CHROMIUM,
        *flags,
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1600,1000",
        "--dump-dom",
        str(frame),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    told = re.search(r'<p id="told">([^<]*)</p>', done.stdout)
    assert told is not None, done.stderr[-500:]
    screen, wide, beyond, broken, scheme, background = told[1].split(" ")
    return int(screen), int(wide), int(beyond), int(broken), scheme == "true", background
