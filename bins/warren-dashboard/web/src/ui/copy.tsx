// A command or a token with a button that copies it.
import { useEffect, useState } from "preact/hooks";
import { failed } from "./toast";

/** How long the button says that it did. */
const SAID_MS = 2_000;

export function Command({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), SAID_MS);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <div class="command">
      <pre tabIndex={0} aria-label={label}>{text}</pre>
      <button type="button" aria-label={`Copy: ${label}`} onClick={() => void copy(text).then(() => setCopied(true), failed)}>
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}

/** Copies by the clipboard, or where a page over plain HTTP may not, by a selection. */
export async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  if (!worked) throw new Error("the browser does not let this page copy: select the text and copy it by hand");
}
