// What the server tells by itself, over one stream of events for the whole dashboard.
import { effect, signal } from "@preact/signals";
import { get } from "./api/client";
import type { Workspace } from "./api/types";
import { follow } from "./events";
import { user } from "./session";

/** The workspaces that the person may see; undefined until they are known. */
export const workspaces = signal<Workspace[] | undefined>(undefined);
/** Whether what is shown is current. */
export const connected = signal(true);

/** Pauses between attempts, in milliseconds: short at first, since most interruptions are. */
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000];
/** A page that nobody looks at for so long lets its stream go: browsers have six connections to a server over HTTP/1.1. */
const HIDDEN_MS = 20_000;

type Listener = (id: string) => void;
const tunnelListeners = new Set<Listener>();
const returnListeners = new Set<() => void>();

/** Calls `then` with the identifier of each workspace whose tunnels have changed; the answer ends that. */
export function onTunnels(then: Listener): () => void {
  tunnelListeners.add(then);
  return () => tunnelListeners.delete(then);
}

/** Calls `then` whenever the stream is back: what was not told meanwhile is to be asked for. */
export function onReturn(then: () => void): () => void {
  returnListeners.add(then);
  return () => returnListeners.delete(then);
}

/** Asks for the list, for those who have just changed it. */
export async function refresh(): Promise<void> {
  workspaces.value = (await get<{ workspaces: Workspace[] }>("/workspaces")).workspaces;
}

let stream: AbortController | undefined;
let retry: ReturnType<typeof setTimeout> | undefined;
let hidden: ReturnType<typeof setTimeout> | undefined;
let attempts = 0;

async function open(): Promise<void> {
  close();
  const mine = new AbortController();
  stream = mine;
  const status = await follow("/api/v1/events", mine.signal, { opened, event });
  if (stream !== mine) return;
  if (status === 401) {
    user.value = null;
    return;
  }
  connected.value = false;
  const pause = PAUSES_MS[Math.min(attempts, PAUSES_MS.length - 1)] ?? 8_000;
  attempts += 1;
  retry = setTimeout(() => void open(), pause);
}

function opened(): void {
  const again = !connected.value || attempts > 0;
  attempts = 0;
  connected.value = true;
  if (!again) return;
  void refresh().catch(() => {});
  for (const then of returnListeners) then();
}

function event(name: string, data: string): void {
  const told = JSON.parse(data) as unknown;
  if (name === "workspaces") {
    workspaces.value = Array.isArray(told) ? told : (told as { workspaces: Workspace[] }).workspaces;
  } else if (name === "tunnels") {
    const id = typeof told === "string" ? told : ((told as { workspace?: string }).workspace ?? "");
    for (const then of tunnelListeners) then(id);
  }
}

function close(): void {
  clearTimeout(retry);
  stream?.abort();
  stream = undefined;
}

// A laptop that wakes up does not wait for the next attempt.
window.addEventListener("online", () => {
  if (user.value && !connected.value) void open();
});

document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (!user.value) return;
  if (document.hidden) hidden = setTimeout(close, HIDDEN_MS);
  else if (!stream) {
    attempts = 1;
    void open();
  }
});

/** Follows the session: a stream while somebody is logged in, and nothing left of it afterwards. */
export function start(): void {
  let following: string | undefined;
  effect(() => {
    const who = user.value?.id;
    if (who === following) return;
    following = who;
    attempts = 0;
    connected.value = true;
    workspaces.value = undefined;
    if (who) {
      void refresh().catch(() => {});
      void open();
    } else close();
  });
}
