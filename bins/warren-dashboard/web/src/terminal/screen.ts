// xterm.js on a link.
import { FitAddon } from "@xterm/addon-fit";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { copy } from "../ui/copy";
import { failed } from "../ui/toast";
import { Link, type Size, type Told } from "./link";
import { writeStylesAllowed } from "./styles";

/** Lines that one can scroll back to. */
const SCROLLBACK = 5_000;
const SIZE_KEY = "warren-terminal-size";
const SIZES = { least: 9, usual: 14, most: 28 };

const THEME: ITheme = {
  background: "#101411", foreground: "#dfe4de", cursor: "#84c79f", cursorAccent: "#101411", selectionBackground: "#2f5a44",
  black: "#1c221e", red: "#f0938c", green: "#84c79f", yellow: "#e0b05c", blue: "#8fbbe8", magenta: "#c9a2e0", cyan: "#7fc9c4", white: "#cfd5ce",
  brightBlack: "#7d877f", brightRed: "#ffb0aa", brightGreen: "#a3d8b8", brightYellow: "#f2cd8b", brightBlue: "#b4d3f3", brightMagenta: "#dfc1ef", brightCyan: "#a6e0dc", brightWhite: "#f4f7f3",
};

/** Keys that a phone's keyboard lacks, as terminals send them; arrows go by the program's own mode. */
const KEYS = { Esc: "\x1b", Tab: "\t", "←": "D", "↓": "B", "↑": "A", "→": "C" } as const;
export type Key = keyof typeof KEYS;

export interface Screen {
  link: Link;
  /** As if this key were pressed. */
  press(key: Key): void;
  /** Has the next letter be typed with Ctrl, then calls `done`; not any more without one. */
  control(done: (() => void) | undefined): void;
  larger(by: number): void;
  focus(): void;
  dispose(): void;
}

/** Shows the terminal at `address` in `place`. `leave` is called by the keys that lead out of it. */
export function open(place: HTMLElement, address: (cols: number, rows: number) => string, watching: boolean, told: Omit<Told, "bytes" | "ready" | "size"> & { leave(): void; ready(): void }): Screen {
  const forbid = writeStylesAllowed();
  const terminal = new Terminal({
    allowProposedApi: true, cursorBlink: true, fontFamily: '"DejaVu Sans Mono", "Cascadia Mono", Menlo, Consolas, ui-monospace, monospace', fontSize: storedSize(),
    scrollback: SCROLLBACK, theme: THEME, disableStdin: watching, macOptionIsMeta: true,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(new WebLinksAddon((_, uri) => void window.open(uri, "_blank", "noopener,noreferrer")));
  terminal.loadAddon(new Unicode11Addon());
  terminal.unicode.activeVersion = "11";
  terminal.open(place);
  const room = (): Size => {
    const { cols, rows } = fit.proposeDimensions() ?? terminal;
    return { cols: Math.max(cols || 80, 2), rows: Math.max(rows || 24, 1) };
  };
  const resize = ({ cols, rows }: Size): void => terminal.resize(cols, rows);
  resize(room());

  const link = new Link(address, room, {
    ...told,
    // The workspace sends the whole screen: what this page remembers may be older.
    ready: (size) => {
      terminal.reset();
      resize(size);
      told.ready();
    },
    size: resize,
    bytes: (data) => terminal.write(data, () => link.showed(data.length)),
  });
  const encoder = new TextEncoder();
  let controlled: (() => void) | undefined;
  const typed = (text: string): void => {
    const letter = text.length === 1 && /[@-_a-z ?]/.test(text);
    link.send(encoder.encode(controlled && letter ? String.fromCharCode(text.toUpperCase().charCodeAt(0) & 0x1f) : text));
    controlled?.();
    controlled = undefined;
  };
  const subscriptions = [
    terminal.onData(typed),
    terminal.onBinary((text) => link.send(Uint8Array.from(text, (letter) => letter.charCodeAt(0)))),
  ];
  terminal.attachCustomKeyEventHandler((event) => keys(event, terminal, told.leave));
  // The program's window is that of whoever types: a watcher sees it as it is.
  let last = room();
  const fitted = (): void => {
    const size = room();
    if (size.cols === last.cols && size.rows === last.rows) return;
    last = size;
    if (!watching) resize(size);
    link.resize(size.cols, size.rows);
  };
  const resized = new ResizeObserver(fitted);
  resized.observe(place);
  const online = (): void => link.hurry();
  window.addEventListener("online", online);
  return {
    link,
    press(key) {
      const arrow = /[A-D]/.test(KEYS[key]);
      terminal.input(arrow ? `\x1b${terminal.modes.applicationCursorKeysMode ? "O" : "["}${KEYS[key]}` : KEYS[key]);
    },
    control(done) {
      controlled = done;
    },
    larger(by) {
      terminal.options.fontSize = Math.min(SIZES.most, Math.max(SIZES.least, (terminal.options.fontSize ?? SIZES.usual) + by));
      localStorage.setItem(SIZE_KEY, String(terminal.options.fontSize));
      fitted();
    },
    focus: () => terminal.focus(),
    dispose() {
      window.removeEventListener("online", online);
      resized.disconnect();
      for (const subscription of subscriptions) subscription.dispose();
      link.close();
      terminal.dispose();
      forbid();
    },
  };
}

/** Keys that are the page's and not the program's; false for those. */
function keys(event: KeyboardEvent, terminal: Terminal, leave: () => void): boolean {
  if (event.type !== "keydown") return true;
  const command = event.ctrlKey && event.shiftKey;
  // Tab is the program's: this is the way out for those without a mouse.
  if (command && event.code === "KeyL") {
    event.preventDefault();
    leave();
    return false;
  }
  const copying = terminal.hasSelection() && event.code === "KeyC" && (event.ctrlKey || event.metaKey);
  if (copying) {
    event.preventDefault();
    void copy(terminal.getSelection()).then(() => {
      terminal.clearSelection();
      terminal.focus();
    }, failed);
    return false;
  }
  // The browser pastes, and xterm.js hears of it.
  return !(command && event.code === "KeyV");
}

function storedSize(): number {
  const size = Number(localStorage.getItem(SIZE_KEY));
  return size >= SIZES.least && size <= SIZES.most ? size : SIZES.usual;
}
