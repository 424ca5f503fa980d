// The connection to a terminal in a workspace: bytes both ways, and words beside them. It comes back by itself.

export interface Size { cols: number; rows: number }

export interface Told {
  /** The whole screen, as it is in the workspace, follows: what was shown is to be forgotten. */
  ready(size: Size): void;
  /** It has another size now: somebody with another window types. */
  size(size: Size): void;
  bytes(data: Uint8Array): void;
  viewers(count: number): void;
  exited(end: { status: number; signal?: string }): void;
  problem(problem: Problem): void;
  state(state: State): void;
}

export interface Problem { code: string; detail: string; hint?: string }

export type State = "connecting" | "open" | "waiting" | "ended";

/** Pauses between attempts, in milliseconds: short at first, since most interruptions are. */
const PAUSES_MS = [300, 700, 1_500, 3_000, 5_000];
/** Bytes shown before the server is told so: it sends a bounded number beyond them. */
const ACK_BYTES = 32 * 1024;
/** What is typed while there is no connection is kept, up to so many bytes: more was not typed by a person. */
const KEPT_BYTES = 4 * 1024;
/** Bytes of one message: what is pasted may be longer than the server takes at once (256 KiB). */
const PIECE_BYTES = 64 * 1024;

export class Link {
  #socket: WebSocket | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #attempts = 0;
  #wasReady = false;
  #ended = false;
  #shown = 0;
  #told = 0;
  #kept: Uint8Array[] = [];

  constructor(
    readonly address: (cols: number, rows: number) => string,
    readonly size: () => Size,
    readonly told: Told,
  ) {
    this.#open();
  }

  send(data: Uint8Array): void {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      for (let at = 0; at < data.length; at += PIECE_BYTES) this.#socket.send(data.subarray(at, at + PIECE_BYTES) as Uint8Array<ArrayBuffer>);
    } else if (!this.#ended && this.#kept.reduce((sum, one) => sum + one.length, data.length) <= KEPT_BYTES) this.#kept.push(data);
  }

  resize(cols: number, rows: number): void {
    this.#say({ resize: { cols, rows } });
  }

  /** So many more bytes were shown: the server may send as many more. */
  showed(bytes: number): void {
    this.#shown += bytes;
    if (this.#shown - this.#told < ACK_BYTES) return;
    this.#told = this.#shown;
    this.#say({ ack: this.#shown });
  }

  /** Tries now, rather than after the pause. */
  hurry(): void {
    if (!this.#ended && (!this.#socket || this.#socket.readyState === WebSocket.CLOSED)) this.#open();
  }

  close(): void {
    this.#ended = true;
    clearTimeout(this.#retry);
    this.#socket?.close();
  }

  #say(words: unknown): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(words));
  }

  #open(): void {
    clearTimeout(this.#retry);
    this.told.state(this.#attempts === 0 ? "connecting" : "waiting");
    const { cols, rows } = this.size();
    const url = new URL(this.address(cols, rows), location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    [this.#shown, this.#told] = [0, 0];
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (socket !== this.#socket) return;
      if (typeof data === "string") this.#heard(JSON.parse(data) as Record<string, unknown>);
      else this.told.bytes(new Uint8Array(data));
    };
    socket.onclose = () => {
      if (socket !== this.#socket || this.#ended) return;
      if (!this.#wasReady && this.#attempts === 0) void this.#why(url);
      const pause = PAUSES_MS[Math.min(this.#attempts, PAUSES_MS.length - 1)] ?? 5_000;
      this.#attempts += 1;
      this.told.state("waiting");
      this.#retry = setTimeout(() => this.#open(), pause);
    };
  }

  #heard(words: Record<string, unknown>): void {
    if ("ready" in words) {
      this.#attempts = 0;
      this.#wasReady = true;
      this.told.ready(words.ready as Size);
      this.told.state("open");
      for (const data of this.#kept.splice(0)) this.send(data);
    }
    if ("size" in words) this.told.size(words.size as Size);
    if ("viewers" in words) this.told.viewers(Number(words.viewers));
    if ("exit" in words) {
      this.#end();
      this.told.exited(words.exit as { status: number; signal?: string });
    }
    if ("problem" in words) {
      const problem = words.problem as Problem;
      // What another attempt would not change ends it; the rest goes on by itself.
      if (!TRANSIENT.has(problem.code)) this.#end();
      this.told.problem(problem);
    }
  }

  /** Browsers do not say why a WebSocket was refused: the same question, asked plainly, is answered with a problem. */
  async #why(url: URL): Promise<void> {
    const answer = await fetch(`${url.pathname}${url.search}`).catch(() => undefined);
    if (!answer || this.#ended || !FINAL.has(answer.status)) return;
    this.#end();
    this.told.problem((await answer.json().catch(() => ({ code: "", detail: `the server answered ${answer.status}` }))) as Problem);
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#retry);
    this.told.state("ended");
    this.#socket?.close();
  }
}

/** Not logged in, not allowed, no such workspace, wrong question: the next attempt would be refused as well. */
const FINAL = new Set([401, 403, 404, 422]);
const TRANSIENT = new Set(["AGENT_OFFLINE", "AGENT_SILENT", "AGENT_UNREACHABLE", "DRAINING"]);
