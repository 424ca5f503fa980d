// A terminal in a workspace. Its session's name is in the address: a reload, or somebody else, comes back to it.
import { useEffect, useRef, useState } from "preact/hooks";
import { part } from "../api/client";
import { sentence } from "../format";
import { title } from "../router";
import "../styles/terminal.css";
import type { State as LinkState } from "../terminal/link";
import { type Key, open, type Screen } from "../terminal/screen";
import { copy } from "../ui/copy";
import { State, type Tone } from "../ui/parts";
import { done, failed } from "../ui/toast";
import { address, api } from "../workspace";

const STATES: Record<LinkState, [Tone, string]> = {
  connecting: ["none", "connecting"], open: ["good", "connected"], waiting: ["warn", "reconnecting"], ended: ["none", "ended"],
};

export default function Page({ owner = "", name = "" }: { owner?: string; name?: string }) {
  const place = useRef<HTMLDivElement>(null);
  const bar = useRef<HTMLDivElement>(null);
  const screen = useRef<Screen>();
  const [session, setSession] = useState(wantedSession);
  const [watching, setWatching] = useState(() => new URLSearchParams(location.search).get("mode") === "watch");
  const [state, setState] = useState<LinkState>("connecting");
  const [viewers, setViewers] = useState(1);
  const [over, setOver] = useState<{ text: string; hint?: string }>();
  const workspace = { owner, name };
  useEffect(() => title(`${name} terminal`), [name]);
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    remember(session, watching);
    setOver(undefined);
    const at = (cols: number, rows: number): string =>
      `/api/v1${api(workspace)}/terminal?session=${session}&cols=${cols}&rows=${rows}&mode=${watching ? "watch" : "write"}`;
    const shown = open(element, at, watching, {
      state: setState,
      viewers: setViewers,
      ready: () => setOver(undefined),
      exited: ({ status, signal }) => setOver({ text: `The program has ended${signal ? ` by the signal ${signal}` : status ? ` with status ${status}` : ""}.` }),
      problem: ({ detail, hint }) => setOver({ text: sentence(detail), ...(hint ? { hint } : {}) }),
      leave: () => bar.current?.querySelector<HTMLElement>("a, button")?.focus(),
    });
    screen.current = shown;
    shown.focus();
    return () => shown.dispose();
  }, [session, watching, owner, name]);
  const [ctrl, setCtrl] = useState(false);
  const hold = (): void => {
    screen.current?.control(ctrl ? undefined : () => setCtrl(false));
    setCtrl(!ctrl);
  };
  const [tone, words] = STATES[state];
  const again = (): void => {
    setSession(newSession());
    setWatching(false);
  };
  return (
    <div class="terminal-page">
      <div class="terminal-bar" ref={bar}>
        <div>
          <h1><a href={address(workspace)}>{owner}/{name}</a></h1>
          <span role="status"><State tone={tone}>{words}</State></span>
          {viewers > 1 && <span class="muted">{viewers} look at it</span>}
        </div>
        <div>
          <span class="muted by-keyboard"><small>Leave by keyboard: Ctrl+Shift+L</small></span>
          <button class="small" aria-pressed={watching} onClick={() => setWatching(!watching)}>{watching ? "Watching" : "Only watch"}</button>
          <button class="small" onClick={() => void copy(watchLink()).then(() => done("Link copied: who may use the workspace can watch"), failed)}>Copy link</button>
          <button class="small quiet" title="Smaller letters" onClick={() => screen.current?.larger(-1)}><span aria-hidden="true">A−</span><span class="visually-hidden">Smaller letters</span></button>
          <button class="small quiet" title="Larger letters" onClick={() => screen.current?.larger(1)}><span aria-hidden="true">A+</span><span class="visually-hidden">Larger letters</span></button>
          <button class="small" onClick={again}>New</button>
        </div>
      </div>
      <div class="terminal-place" ref={place} role="region" aria-label={`Terminal of ${owner}/${name}`}>
        {over && (
          <div class="terminal-over" role="alert">
            <div>{over.text}{over.hint && <small class="muted"> {sentence(over.hint)}</small>}</div>
            {state === "ended" && <button class="small primary" onClick={again}>Start a new one</button>}
          </div>
        )}
      </div>
      {!watching && (
        // The terminal keeps the focus, and with it a phone's keyboard stays open.
        <div class="touch-keys" role="toolbar" aria-label="Keys" onPointerDown={(event) => event.preventDefault()}>
          <button class="small" aria-pressed={ctrl} onClick={hold}>Ctrl</button>
          {TOUCH_KEYS.map(([key, name]) => <button class="small" aria-label={name} onClick={() => screen.current?.press(key)} key={key}>{key}</button>)}
        </div>
      )}
    </div>
  );
}

/** Those whose sign does not say what they are called have a name. */
const TOUCH_KEYS: [Key, string?][] = [["Esc"], ["Tab"], ["←", "Left"], ["↓", "Down"], ["↑", "Up"], ["→", "Right"]];
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function wantedSession(): string {
  const asked = new URLSearchParams(location.search).get("session") ?? "";
  return UUID.test(asked) ? asked : newSession();
}

/** A random UUID, also where a page over plain HTTP has no `randomUUID`. */
function newSession(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

function remember(session: string, watching: boolean): void {
  history.replaceState(null, "", `${location.pathname}?session=${part(session)}${watching ? "&mode=watch" : ""}`);
}

function watchLink(): string {
  const link = new URL(location.href);
  link.searchParams.set("mode", "watch");
  return link.href;
}
