// The time, for what is told as "3 min ago".
import { signal } from "@preact/signals";

/** Now, in milliseconds, to a few seconds. */
export const now = signal(Date.now());

/** How often what is told by it changes. */
const EVERY_MS = 5_000;

setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, EVERY_MS);
document.addEventListener("visibilitychange", () => {
  now.value = Date.now();
});
