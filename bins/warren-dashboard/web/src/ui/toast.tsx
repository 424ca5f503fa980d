// Short words at the edge of the page: what failed, with the server's hint and request id.
import { signal } from "@preact/signals";
import { Failure, words } from "../api/client";

interface Toast { id: number; text: string; hint: string; tone: "bad" | "good" }

const toasts = signal<Toast[]>([]);
let next = 1;
/** What went well is gone by itself; what failed stays until it is read. */
const GOOD_MS = 4_000;
/** More would cover the page. */
const SHOWN_MAX = 3;

export function failed(error: unknown): void {
  const hint = error instanceof Failure ? [error.hint, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · ") : "";
  add({ id: next++, text: words(error), hint, tone: "bad" });
}

export function done(text: string): void {
  const toast: Toast = { id: next++, text, hint: "", tone: "good" };
  add(toast);
  setTimeout(() => drop(toast.id), GOOD_MS);
}

function add(toast: Toast): void {
  toasts.value = [...toasts.value, toast].slice(-SHOWN_MAX);
}

function drop(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div class="toast" data-tone={toast.tone} key={toast.id}>
          <div>
            {toast.text}
            {toast.hint && <small>{toast.hint}</small>}
          </div>
          <button class="quiet small" aria-label="Close this message" onClick={() => drop(toast.id)}>✕</button>
        </div>
      ))}
    </div>
  );
}
