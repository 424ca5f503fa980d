// Which page the address means, without loading it anew.
import { signal } from "@preact/signals";

/** The path shown. */
export const path = signal(location.pathname);

/** What to read out when the page changes, and the window's title. */
export function title(text: string): void {
  document.title = text ? `${text} · Warren` : "Warren";
}

/** Goes to another page. */
export function go(to: string, replace = false): void {
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  shown();
}

function shown(): void {
  const changed = path.value !== location.pathname;
  path.value = location.pathname;
  if (!changed) return;
  window.scrollTo(0, 0);
  // Who goes by keyboard or listens starts at the new page, not where the old one was left.
  requestAnimationFrame(() => document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true }));
}

/** Takes over links and the browser's buttons. */
export function start(): void {
  window.addEventListener("popstate", shown);
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.("a");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    // The guide's pages and the API's documents are no pages of this router's; apps are other people's.
    if (/^\/(docs|api\/(?!docs$)|@)/.test(link.pathname)) return;
    if (link.pathname === location.pathname && link.hash) return;
    event.preventDefault();
    go(link.pathname + link.search + link.hash);
  });
}

/** The parts of a path that a pattern such as `/workspaces/:owner/:name` names; none if it is another path. */
export function match(pattern: string, actual: string): Record<string, string> | undefined {
  const wanted = pattern.split("/");
  const given = actual.replace(/\/+$/, "").split("/");
  if (wanted.length !== given.length) return undefined;
  const found: Record<string, string> = {};
  for (const [i, piece] of wanted.entries()) {
    const value = given[i] ?? "";
    if (piece.startsWith(":")) found[piece.slice(1)] = decoded(value);
    else if (piece !== value) return undefined;
  }
  return found;
}

/** A part of an address as it was meant; as it is if it cannot be read. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
