// Server-sent events read by `fetch`: unlike EventSource it tells the answer's status, and hears the comments by which
// the server says that it is still there.

export interface Handlers {
  /** The stream is open. */
  opened(): void;
  /** An event of this name with this data. */
  event(name: string, data: string): void;
}

/** A stream that says nothing for so long is dead: the server sends a comment each 15 s. */
const SILENCE_MS = 40_000;

/**
 * Reads events until the stream ends or `signal` ends it. Resolves with the HTTP status of an answer that is no
 * stream, and with 0 if there was none, it fell silent, or it ended.
 */
export async function follow(path: string, signal: AbortSignal, handlers: Handlers): Promise<number> {
  const ended = new AbortController();
  const end = (): void => ended.abort();
  signal.addEventListener("abort", end);
  let timer = setTimeout(end, SILENCE_MS);
  try {
    const answer = await fetch(path, { credentials: "same-origin", headers: { Accept: "text/event-stream" }, signal: ended.signal });
    if (!answer.ok || !answer.body) return answer.status;
    handlers.opened();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser(handlers.event);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return 0;
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE_MS);
      parse(value);
    }
  } catch {
    return 0;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    ended.abort();
  }
}

/** Takes text as it comes and tells whole events. */
export function parser(told: (name: string, data: string) => void): (text: string) => void {
  let [rest, name] = ["", ""];
  let data: string[] = [];
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) told(name || "message", data.join("\n"));
        [name, data] = ["", []];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") name = value;
      else if (field === "data") data.push(value);
    }
  };
}
