"""How the arena and the generations look besides what all pages share, and the arena's keys."""

from __future__ import annotations

CSS = """
#pages { flex: 1 1 auto; }
#question { max-height: 30dvh; overflow-y: auto; padding: .25rem .25rem .5rem; font-weight: 600; }
#answers { align-items: stretch; gap: .75rem; }
#answers > * { flex: 1 1 0; min-width: 0 !important; height: 46dvh; overflow-y: auto !important; padding: .75rem 1rem;
  border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
  background: var(--block-background-fill); }
#ballot { gap: .5rem; }
#ballot button { flex: 1 1 0; min-width: 0 !important; }
#told { min-height: 1.6rem; }
#entry button { flex: 0 0 auto; }
#keys { opacity: .75; font-size: .85rem; }
.scrolls { overflow-x: auto; }
.scrolls table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.scrolls th, .scrolls td { text-align: left; padding: .3rem .75rem .3rem 0; white-space: nowrap;
  border-bottom: 1px solid var(--border-color-primary); }
.note { opacity: .75; font-size: .85rem; margin: .25rem 0 1.25rem; }
@media (max-width: 640px) {
  .gradio-container main.fillable { padding-left: .5rem !important; }
  #answers { flex-direction: row; flex-wrap: nowrap; gap: .4rem; }
  #answers > * { padding: .5rem; font-size: .9rem; }
  #ballot { flex-wrap: wrap; }
  #ballot button { flex: 1 1 45%; }
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
    const typing = event.target.closest("input, textarea, select, [contenteditable], [role=tab]");
    if (!name || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    document.getElementById(name)?.click();
  });
})();
</script>
"""
