"""Pictures in a browser: what is hidden appears at a focus, by style alone, and pages do not overflow."""

import json
import re
import shutil
import subprocess

import pytest
from test_series import chain, mean_field, report

BROWSER = shutil.which("chromium")
ASK = """<script>
const seen = e => [...e.querySelectorAll(':scope > .ppl-shown')].map(s => getComputedStyle(s).visibility).join();
const all = [...document.querySelectorAll('.ppl-touch[tabindex]')];
const edge = all.find(e => e.querySelector('title').textContent.startsWith('missing'));
const node = all.find(e => e !== edge);
const found = [all.length, seen(edge), seen(node)];
const focused = async e => {  // a window that has just been opened may not have the focus yet
  for (let i = 0; i < 100 && !(document.hasFocus() && e.matches(':focus')); i++) {
    e.focus();
    await new Promise(done => setTimeout(done, 20));
  }
  found.push(seen(edge), seen(node));
};
const root = document.documentElement;
focused(edge).then(() => focused(node)).then(() => {
  found.push(root.scrollWidth <= root.clientWidth, getComputedStyle(document.body).backgroundColor);
  document.body.textContent = JSON.stringify(found);
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("size", ["500,900", "1440,900"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_answers_by_keyboard_in_both_schemes(tmp_path, size, dark):
    page = tmp_path / "page.html"
    told = report(chain(8), mean_field(chain(8))).to_html()
    assert "<script" not in told
    page.write_text(told.replace("</main>", f"</main>{ASK}"))
    flags = [
        "--headless",
        "--no-sandbox",
        f"--window-size={size}",
        "--dump-dom",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path}",
    ]
    flags += ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([BROWSER, *flags, str(page)], capture_output=True, text=True, timeout=120, check=False)
    count, *seen, fits, color = json.loads(re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)[1])
    assert count > 10 and seen == ["hidden", "hidden", "visible", "hidden", "hidden", "visible"]
    assert fits and color == ("rgb(18, 22, 30)" if dark else "rgb(255, 255, 255)")
