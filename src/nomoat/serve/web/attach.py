"""Text files that are attached to a message. The browser reads them: no file of the reader's is ever uploaded, and
the server takes none."""

from __future__ import annotations

MOST_FILE_BYTES = 100_000  # some ten times what most contexts hold

# Each file stands in the message between fences longer than any run of backticks in it, so that its text cannot end
# them. A dialog that is dismissed leaves the message as it was.
ATTACH = """
async (message) => {
  const chosen = await new Promise((done) => {
    const input = Object.assign(document.createElement("input"), { type: "file", multiple: true });
    input.addEventListener("change", () => done([...input.files]));
    input.addEventListener("cancel", () => done([]));
    input.click();
  });
  const parts = message.trim() ? [message.trimEnd()] : [];
  for (const file of chosen) {
    if (file.size > MOST_FILE_BYTES) {
      alert(`${file.name} has ${file.size} bytes; a message takes text files of up to MOST_FILE_BYTES.`);
      continue;
    }
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    } catch {
      text = String.fromCharCode(0);
    }
    if (text.includes(String.fromCharCode(0))) {
      alert(`${file.name} is no text in UTF-8; a model here reads text only.`);
      continue;
    }
    const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
    const fence = "`".repeat(longest + 1);
    const name = file.name.replace(/[`\\s]+/g, " ");
    parts.push(`\\`${name}\\`:\\n${fence}\\n${text.replace(/\\r?\\n$/, "")}\\n${fence}`);
  }
  setTimeout(() => document.querySelector("#box textarea")?.focus());
  return parts.length ? parts.join("\\n\\n") + "\\n\\n" : message;
}
""".replace("MOST_FILE_BYTES", str(MOST_FILE_BYTES))
