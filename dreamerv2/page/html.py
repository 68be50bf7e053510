"""The page itself: one file with everything in it."""

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

from common.files import write_text
from dreamerv2.measure.curves import read_run
from dreamerv2.page import content
from dreamerv2.page.charts import charts
from dreamerv2.reference import verdict
from dreamerv2.run.origin import origin

STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2530; --paper: #fcfcfa; --soft: #6b7480; --line: #dfe3e8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --paper: #14181d; --soft: #98a2ae; --line: #2e3640; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr));
  gap: 1.2rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .9rem; margin-bottom: .2rem; }
svg { width: 100%; height: auto; } img { max-width: 100%; image-rendering: pixelated; }
img.small { width: 20rem; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; font-size: .9rem; }
td { border-bottom: 1px solid var(--line); padding: .25rem .6rem .25rem 0; vertical-align: top;
  overflow-wrap: anywhere; }
td:first-child { color: var(--soft); width: 50%; }
@media (min-width: 40rem) { td:first-child { width: 14rem; } }
code, pre { font: .85rem/1.4 ui-monospace, monospace; }
code { overflow-wrap: anywhere; } pre { overflow-x: auto; }
"""
WIDE = ("film", "Open loop", "latent")  # pictures whose text would be lost in a column


def write_page(logdir: Path, out: Path, parity: Callable[[], str | None] = verdict.known) -> None:
    """Writes the page about a run, whole or not at all.

    parity: gives what the comparison of this code with the reference printed; asked for once there
      is a run. Without it, what was measured before.

    Raises:
        ValueError or OSError: there is no run, or a file cannot be read or written.
    """
    run = read_run(logdir)
    source = origin(run.settings)
    given = " ".join(source.blocks) or "defaults"
    changes = [(key, str(value)) for key, value in source.changes.items()]
    sections = [
        f"<h1>{html.escape(run.task)}</h1><p class=soft>{html.escape(str(logdir))}</p>",
        _section("Latest evaluation", f"<p>{html.escape(content.evaluation(run))}</p>"),
        _section("Curves", _grid([_figure(*chart) for chart in charts(run)])),
        _section("Pictures", "".join(map(_picture, content.pictures(logdir)))),
        _section("What was run", _table(content.what_was_run(run, source))),
        _section(f"Settings that differ from the blocks: {given}", _table(changes)),
        _section("Precision", _table(content.precision(run))),
        _section("Parity of this code with the author's release", _parity(parity())),
    ]
    write_text(
        out,
        "<!DOCTYPE html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(run.task)}</title><style>{STYLE}</style>"
        f"<body>{''.join(sections)}</body></html>\n",
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{body}" if body else ""


def _grid(items: Sequence[str]) -> str:
    return f"<div class=grid>{''.join(items)}</div>" if items else ""


def _figure(title: str, body: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{body}</figure>"


def _picture(picture: content.Picture) -> str:
    path = picture.path
    if path.stat().st_size > content.MOST_BYTES:
        return _figure(picture.title, f"<p>Too large for this page: {html.escape(str(path))}</p>")
    data = base64.b64encode(path.read_bytes()).decode()
    kind = "" if any(word in picture.title for word in WIDE) else " class=small"
    alt = html.escape(picture.title, quote=True)
    source = f"data:image/{path.suffix[1:]};base64,{data}"
    return _figure(f"{picture.title} ({path.name})", f"<img{kind} alt='{alt}' src='{source}'>")


def _table(facts: content.Facts) -> str:
    rows = (f"<tr><td>{html.escape(k)}<td>{html.escape(v)}" for k, v in facts)
    return f"<table>{''.join(rows)}</table>" if facts else ""


def _parity(text: str | None) -> str:
    if text:
        return f"<pre>{html.escape(text)}</pre>"
    command = "python -m dreamerv2.report --logdir DIR"
    return f"<p class=soft>Not measured yet for this version. To do so: <code>{command}</code></p>"


def write_at_end(logdir: Path) -> None:
    """`LOGDIR/report.html` of a run that has ended; its loss must not make the run fail."""
    path = logdir / "report.html"
    try:
        write_page(logdir, path)
    except (OSError, ValueError) as error:
        print(f"WARNING: {path} was not written ({error})")
    else:
        print(f"Report: {path}")
