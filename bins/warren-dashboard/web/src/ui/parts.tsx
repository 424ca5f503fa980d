// Small parts that several pages use.
import type { ComponentChildren } from "preact";
import { now } from "../clock";
import { Failure, words } from "../api/client";
import { ago, full } from "../format";
import type { Path } from "../api/types";

export type Tone = "good" | "warn" | "bad" | "info" | "none";

/** A state by mark and word: never by colour alone. */
export function State({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class="state" data-tone={tone}>{children}</span>;
}

export function Chip({ tone = "none", children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class="chip" data-tone={tone}>{children}</span>;
}

/** A time as how long ago, with the whole of it to point at. */
export function Ago({ time, none = "never" }: { time: string | null | undefined; none?: string }) {
  if (!time) return <span class="muted">{none}</span>;
  return <time dateTime={time} title={full(time)}>{ago(time, now.value)}</time>;
}

/** Which way the traffic goes, always in words. */
export function Way({ path, addresses = false }: { path: Path | null | undefined; addresses?: boolean }) {
  if (!path || path.kind === "none") return <span class="muted">–</span>;
  if (path.kind === "direct") return <Chip tone="good">direct{addresses && path.address ? ` ${path.address}` : ""}</Chip>;
  return <Chip tone="warn">relay{path.relay ? ` ${path.relay}` : ""}</Chip>;
}

/** What did not work, where it should have been. */
export function Problem({ error, retry }: { error: unknown; retry?: () => void }) {
  const failure = error instanceof Failure ? error : undefined;
  return (
    <div class="note" data-tone="bad" role="alert">
      {words(error)}
      {failure?.hint && <small>{failure.hint}</small>}
      {failure?.requestId && <small>Request {failure.requestId}</small>}
      {retry && <p><button class="small" onClick={retry}>Try again</button></p>}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return <p class="skeleton" role="status"><span class="waiting"><span class="spin" />Loading {what}</span></p>;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return <div class="empty"><h2>{title}</h2>{children}</div>;
}

/** The head of a page: its name, what it is for, and what one can do. */
export function Head({ name, about, crumbs, children }: { name: ComponentChildren; about?: ComponentChildren; crumbs?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="page-head">
      <div>
        {crumbs && <nav class="crumbs" aria-label="Where this is">{crumbs}</nav>}
        <h1>{name}</h1>
        {about && <p>{about}</p>}
      </div>
      {children && <div class="actions">{children}</div>}
    </div>
  );
}
