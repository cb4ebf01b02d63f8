"""A headless Chromium that looks at a page: what it measured of texts and bars, and what it complained of."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Runs beside the page, not in it: a frame of a given width is a viewport of that width, whatever the least width
# of a window is. The contrast is WCAG 2.1's: (L1 + 0.05) / (L2 + 0.05) of the relative luminances.
MEASURE = """
function channel(v) { v /= 255; return v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); }
function parts(colour) { return colour.match(/[\\d.]+/g).map(Number); }
function luminance(colour) {
  const [r, g, b] = parts(colour).map(channel);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
}
function background(element, view) {
  for (let e = element; e; e = e.parentElement) {
    const colour = view.getComputedStyle(e).backgroundColor, rgba = parts(colour);
    if (rgba.length === 3 || rgba[3] === 1) return colour;
  }
  return 'rgb(255, 255, 255)';
}
function measure() {
  const frame = document.querySelector('iframe'), page = frame.contentDocument, view = frame.contentWindow;
  const out = { width: page.documentElement.scrollWidth, dark: view.matchMedia('(prefers-color-scheme: dark)').matches,
    page: view.getComputedStyle(page.body).backgroundColor, texts: [], outside: [],
    bars: [...page.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect().width) };
  for (const element of page.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = view.getComputedStyle(element), box = element.getBoundingClientRect();
    if (!box.width) continue;
    out.texts.push({ text: element.textContent.trim().slice(0, 40), size: parseFloat(style.fontSize),
      contrast: contrast(style.color, background(element, view)) });
    if (box.right > view.innerWidth + 1 || box.left < -1) out.outside.push(element.textContent.slice(0, 40));
  }
  document.querySelector('#measured').textContent = JSON.stringify(out);
}
"""


@dataclass(frozen=True)
class Look:
    """measured: what MEASURE found; console: everything that the browser's console showed."""

    measured: dict[str, Any]
    console: list[str]


def look(page: str, directory: Path, *, width: int, dark: bool) -> Look:
    """Opens `page` in a viewport `width` pixels wide. Skips the test where there is no browser."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    path = directory / f"look-{width}-{dark}.html"
    path.write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><pre id="measured"></pre>'
        f'<iframe style="border:0;width:{width}px;height:4000px" srcdoc="{html.escape(page, quote=True)}"></iframe>'
        f"<script>{MEASURE}\nwindow.onload = measure;</script>"
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    words += [f"--user-data-dir={directory / 'profile'}", "--enable-logging=stderr", "--v=0", "--window-size=1400,4200"]
    words += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run([program, *words, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    assert found[1], f"the page could not be measured: {done.stderr[-2000:]}"
    return Look(json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if ":CONSOLE" in line])
