"""How the arena and the generations look besides what all pages share, and the arena's keys."""

from __future__ import annotations

CSS = """
#pages { flex: 1 1 auto; }
#question { max-height: 30dvh; overflow-y: auto; padding: .25rem .25rem .5rem; font-weight: 600; }
#answers { align-items: stretch; gap: .75rem; }
#answers > * { flex: 1 1 0; min-width: 0 !important; height: 46dvh; overflow-y: auto !important; padding: .75rem 1rem;
  border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
  background: var(--block-background-fill); }
#ballot { gap: .5rem; align-items: stretch; }
#ballot button { flex: 1 1 0; min-width: 0 !important; }
#why { align-items: center; flex-wrap: wrap; gap: .5rem; }
#why > * { min-width: 0 !important; flex: 1 1 16rem; }
#why > #reasons { flex: 0 1 auto; width: auto; }
#reasons .wrap { gap: .35rem; }
#reasons label { padding: .3rem .55rem; font-size: .85rem; }
#told { min-height: 1.6rem; }
#entry button { flex: 0 0 auto; }
#keys { opacity: .75; font-size: .85rem; }
.scrolls { overflow-x: auto; }
.scrolls table, .scrolls tr { border: 0 !important; }
.scrolls table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.scrolls th, .scrolls td { text-align: left; padding: .3rem 1rem .3rem 0 !important; white-space: nowrap;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.scrolls td:last-child { white-space: normal; min-width: 9rem; }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
.figures svg { flex: 1 1 20rem; max-width: 34rem; }
body { --ink: #1c1c1a; --muted: #63625d; --rule: #dcdad3; --tuned: #0f766e; --base: #a85a08; }
body.dark { --ink: #e8e6e0; --muted: #a09d95; --rule: #4a4944; --tuned: #2dd4bf; --base: #e0a458; }
.note { opacity: .75; font-size: .85rem; margin: .25rem 0 1.25rem; }
@media (max-width: 640px) {
  .gradio-container main { padding: .5rem !important; }
  #answers { flex-direction: row; flex-wrap: nowrap; gap: .4rem; }
  #answers > * { padding: .5rem; font-size: .9rem; height: 38dvh; }
  #ballot button { font-size: .8rem; padding: .5rem .25rem; }
  #why > * { flex: 1 1 100% !important; }
  #reasons .wrap { display: grid; grid-template-columns: repeat(3, auto); }
  #reasons label { font-size: .75rem; padding: .25rem .4rem; }
  #told { min-height: 0; }
  #entry { flex-wrap: wrap; }
  #entry > #box { flex: 1 1 100%; }
  #entry button { flex: 1 1 0; }
  #keys { display: none; }
}
"""

# Where nobody is typing. A disabled button does nothing when it is clicked.
HEAD = """
<script>
(() => {
  const keys = {
    ArrowLeft: "vote-left", a: "vote-left", ArrowRight: "vote-right", b: "vote-right",
    t: "vote-tie", x: "vote-bad", n: "next",
  };
  document.addEventListener("keydown", (event) => {
    const name = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const typing = event.target.closest(
      "input:not([type=checkbox]), textarea, select, [contenteditable], [role=tab]");
    const reason = document.querySelectorAll("#reasons input")[event.key - 1];
    if (!(name || reason) || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    (reason ?? document.getElementById(name))?.click();
  });
})();
</script>
"""
