"""How the pages look and what their keys do. Nothing here is fetched from outside: fonts are the system's."""

from __future__ import annotations

from typing import Any

TEXT_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif")
CODE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

# Every page may load from this server alone: an image or a link in an answer cannot tell anybody anything.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; "
    "worker-src 'self' blob:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)

CSS = """
body { background: var(--body-background-fill) !important; color: var(--body-text-color) !important; }
footer { display: none !important; }
.gradio-container { max-width: none !important; }
.gradio-container main.fillable { padding: .75rem 1rem .5rem !important; max-width: none !important; }
#top, #entry { align-items: center; flex-wrap: nowrap; gap: .5rem; flex-grow: 0; }
#top > *, #entry > * { min-width: 0 !important; }
#top .form, #entry .form { flex: 1 1 auto; border: 0; box-shadow: none; }
#top .form { display: flex; flex-direction: row; flex-wrap: nowrap; align-items: center; background: none; }
#picker { flex: 1 1 auto; width: auto; min-width: 0 !important; }
#compare { flex: 0 0 auto; width: auto; min-width: 0 !important; border: 0; padding: 0 .75rem; background: none; }
#theme { flex: 0 0 auto; min-width: 2.75rem !important; }
#pages nav { display: flex; gap: .75rem; font-size: .9rem; }
#pages .html-container { padding-left: 0 !important; }
#pages a { color: inherit; text-decoration: none; opacity: .75; }
#pages a[aria-current] { opacity: 1; font-weight: 600; }
#columns { height: calc(100dvh - 11.5rem); flex-wrap: nowrap; }
#columns > * { height: 100% !important; min-width: 0 !important; }
main:has(#choice) #columns { height: calc(100dvh - 23.5rem); }
#choice { height: 11rem; flex-grow: 0; flex-wrap: nowrap; gap: .5rem; padding: 0 .25rem; }
#earlier { flex: 1 1 auto; min-height: 0; overflow-y: auto !important; }
#which { flex: 0 0 auto; flex-wrap: nowrap; gap: .5rem; }
#which button { min-width: 0 !important; }
#talk .top-panel, #beside .top-panel { display: none; }
#pace { min-height: 1.4rem; opacity: .75; font-size: .85rem; }
#entry button { flex: 0 0 auto; min-width: 5.5rem !important; }
#entry #attach { min-width: 2.75rem !important; }
#past .wrap { display: flex; flex-direction: column; flex-wrap: nowrap; gap: .15rem;
  max-height: 40vh; overflow-y: auto; }
#past label { width: 100%; border: 0; box-shadow: none; background: none; }
#past label.selected { background: var(--color-accent-soft); color: var(--body-text-color); }
#past input { position: absolute; opacity: 0; pointer-events: none; }
#past label:has(input:focus-visible) { outline: 2px solid var(--color-accent); }
#past label span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; margin-left: 0; }
@media (max-width: 640px) {
  .gradio-container main.fillable { padding: .5rem .5rem .25rem 2.5rem !important; }
  #columns { flex-direction: column; }
  #entry button { min-width: 3.5rem !important; }
  #entry button:disabled { display: none; }
}
"""

# Escape stops an answer, Ctrl+Shift+O begins a new conversation. The choice of light or dark outlives a reload.
HEAD = """
<link rel="icon" href="data:,">
<script>
(() => {
  const kept = localStorage.getItem("nomoat-theme");
  const set = (dark) => document.body.classList.toggle("dark", dark);
  document.addEventListener("DOMContentLoaded", () => { if (kept) set(kept === "dark"); });
  new MutationObserver((_, watching) => {
    if (!document.getElementById("theme")) return;
    watching.disconnect();
    document.getElementById("attach")?.setAttribute("title", "Attach text files"); // the arena has none
    if (window.innerWidth <= 640) document.querySelector(".sidebar.open .toggle-button")?.click();
    if (localStorage.getItem("nomoat-theme")) set(localStorage.getItem("nomoat-theme") === "dark");
  }).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    const dark = !document.body.classList.contains("dark");
    localStorage.setItem("nomoat-theme", dark ? "dark" : "light");
    set(dark);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.getElementById("stop")?.click();
    if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      document.getElementById("new")?.click();
    }
  });
})();
</script>
"""


def nav(here: str) -> str:
    """Links to all pages."""
    pages = {"Chat": "/app/", "Arena": "/arena/", "Generations": "/generations/"}
    links = (
        f"<a href='{path}'{' aria-current=page' if name == here else ''}>{name}</a>"
        for name, path in pages.items()
    )
    return f"<nav>{''.join(links)}</nav>"


def theme() -> Any:
    """Gradio's default with the fonts of the reader's own system."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=list(TEXT_FONTS), font_mono=list(CODE_FONTS)
    )
