// Asking the server. What fails is a `Failure` with the server's own sentence, hint and request id.

import { sentence } from "../format";

/** Why a request was not done: an RFC 9457 problem, or no answer at all (status 0). */
export class Failure extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string,
    readonly requestId: string,
  ) {
    super(message);
  }
}

/** Called when the server says that nobody is logged in. */
let onLoggedOut: () => void = () => {};
export function whenLoggedOut(then: () => void): void {
  onLoggedOut = then;
}

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return ask<T>("GET", path, undefined, signal);
}
export function post<T>(path: string, body?: unknown): Promise<T> {
  return ask<T>("POST", path, body);
}
export function put<T>(path: string, body?: unknown): Promise<T> {
  return ask<T>("PUT", path, body);
}
export function patch<T>(path: string, body: unknown): Promise<T> {
  return ask<T>("PATCH", path, body);
}
export function remove(path: string): Promise<void> {
  return ask<void>("DELETE", path);
}

/** A part of a path, whatever is in it. */
export const part = encodeURIComponent;

async function ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, credentials: "same-origin", headers: { Accept: "application/json" } };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    init.headers = { ...init.headers, "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(`/api/v1${path}`, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, "UNREACHABLE", "the server does not answer", "check your network, then try again", "");
  }
  const text = await answer.text();
  const document = parsed(text);
  if (answer.ok) return document as T;
  const problem = (document ?? {}) as { code?: string; detail?: string; title?: string; hint?: string; request_id?: string };
  const failure = new Failure(
    answer.status,
    problem.code ?? "",
    problem.detail ?? problem.title ?? `the server answered ${answer.status}`,
    problem.hint ?? "",
    problem.request_id ?? answer.headers.get("warren-request-id") ?? "",
  );
  if (answer.status === 401 && !path.startsWith("/login") && path !== "/setup" && path !== "/me") onLoggedOut();
  throw failure;
}

function parsed(text: string): unknown {
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A failure's words, for people. */
export function words(error: unknown): string {
  return sentence(error instanceof Error ? error.message : String(error));
}
