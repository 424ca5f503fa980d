// The frame around the pages, and which page belongs to which path.
import type { ComponentChildren, FunctionComponent } from "preact";
import { useEffect, useState } from "preact/hooks";
import { connected } from "./live";
import { Login } from "./pages/login";
import { NotFound } from "./pages/not-found";
import { Setup } from "./pages/setup";
import { Workspaces } from "./pages/workspaces";
import { go, match, path } from "./router";
import { administers, build, loginAddress, logOut, user } from "./session";
import { setTheme, theme, type Theme } from "./theme";
import { Dialog } from "./ui/dialog";
import { lazy } from "./ui/lazy";
import { Loading } from "./ui/parts";
import { failed, Toasts } from "./ui/toast";

type Names = Record<string, string>;

const PAGES: [string, FunctionComponent<Names>][] = [
  ["", Workspaces as FunctionComponent<Names>],
  ["/workspaces", Workspaces as FunctionComponent<Names>],
  ["/workspaces/:owner/:name", lazy(() => import("./pages/workspace"), "the workspace")],
  ["/workspaces/:owner/:name/terminal", lazy(() => import("./pages/terminal"), "the terminal")],
  ["/relays", lazy(() => import("./pages/relays"), "relays")],
  ["/health", lazy(() => import("./pages/health"), "health")],
  ["/people", lazy(() => import("./pages/people"), "people and tokens")],
  ["/audit", lazy(() => import("./pages/audit"), "the audit log")],
  ["/settings", lazy(() => import("./pages/settings"), "settings")],
  ["/replicas", lazy(() => import("./pages/replicas"), "replicas")],
];

const ApiDocs = lazy(() => import("./pages/api-docs"), "the description");

const NAVIGATION: { group?: string; links: [string, string][] }[] = [
  { links: [["/workspaces", "Workspaces"], ["/relays", "Relays"], ["/health", "Health"], ["/people", "People and tokens"]] },
];
const ADMINISTRATION: [string, string][] = [["/audit", "Audit log"], ["/settings", "Settings"], ["/replicas", "Replicas"]];

export function App() {
  const at = path.value.replace(/\/+$/, "");
  const who = user.value;
  const open = at === "/login" || at === "/setup" || at === "/api/docs";
  useEffect(() => {
    if (who === null && !open) go(loginAddress(), true);
  }, [who, open]);
  if (at === "/setup") return <><Setup /><Toasts /></>;
  if (at === "/login") return <><Login /><Toasts /></>;
  if (at === "/api/docs") return <ApiDocs />;
  if (!who) return <div class="alone"><Loading what="the dashboard" /></div>;
  for (const [pattern, Page] of PAGES) {
    const names = match(pattern, at);
    // A page is begun anew for another workspace, rather than taken over with what the first one showed.
    if (names) return <Frame wide={at.endsWith("/terminal")}><Page key={at} {...names} /></Frame>;
  }
  return <Frame><NotFound /></Frame>;
}

function Frame({ children, wide = false }: { children: ComponentChildren; wide?: boolean }) {
  const [help, setHelp] = useState(false);
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      const typing = target.closest("input, textarea, select, [contenteditable], dialog, .xterm");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?") setHelp(true);
      const search = document.querySelector<HTMLInputElement>("input[type=search]");
      if (event.key === "/" && search) {
        event.preventDefault();
        search.focus();
      }
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
  return (
    <>
      <a class="skip" href="#main">Skip to the page</a>
      <div class="frame">
        <Side onHelp={() => setHelp(true)} />
        <div>
          {!connected.value && (
            <div class="banner" role="status"><span class="spin" />Reconnecting: what you see may be out of date</div>
          )}
          <main id="main" tabIndex={-1} class={wide ? "wide" : undefined}>{children}</main>
        </div>
      </div>
      {help && <Help onClose={() => setHelp(false)} />}
      <Toasts />
    </>
  );
}

function Side({ onHelp }: { onHelp: () => void }) {
  const [open, setOpen] = useState(false);
  const at = path.value;
  useEffect(() => setOpen(false), [at]);
  const link = ([to, name]: [string, string]) => {
    const here = at === to || (to === "/workspaces" && (at === "/" || at.startsWith("/workspaces/")));
    return <a href={to} key={to} aria-current={here ? "page" : undefined}>{name}</a>;
  };
  return (
    <div class="side"><div class="held">
      <div class="top">
        <a class="brand" href="/workspaces"><img src="/icon.svg" alt="" width="24" height="24" />Warren</a>
        <button class="menu-button small" aria-expanded={open} aria-controls="fold" onClick={() => setOpen(!open)}>Menu</button>
      </div>
      <div class="fold" id="fold" data-open={open}>
        <nav aria-label="Pages">
          {NAVIGATION.map(({ links }) => links.map(link))}
          {administers() && <div class="group">Administration</div>}
          {administers() && ADMINISTRATION.map(link)}
          <div class="group">Reading</div>
          <a href="/docs">Guide</a>
          <a href="/api/docs">API</a>
        </nav>
        <div class="who">
          <div>
            <strong>{user.value?.name}</strong>
            <div class="muted"><small>{user.value?.role}</small></div>
          </div>
          <button class="quiet small" onClick={() => void logOut().catch(failed)}>Log out</button>
        </div>
        <div class="version">
          <label class="visually-hidden" for="theme">Colours</label>
          <select id="theme" value={theme.value} onChange={(event) => setTheme(event.currentTarget.value as Theme)}>
            <option value="system">System colours</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
          <div class="foot">
            <span>{build.value ? `warren-server ${build.value.version}` : ""}</span>
            <button class="quiet small" onClick={onHelp} aria-label="Keyboard shortcuts">?</button>
          </div>
        </div>
      </div>
    </div></div>
  );
}

function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <dl class="facts">
        <dt><kbd>/</kbd></dt><dd>search in the list</dd>
        <dt><kbd>?</kbd></dt><dd>this help</dd>
        <dt><kbd>Tab</kbd></dt><dd>from one control to the next; the first leads past the navigation</dd>
        <dt><kbd>Esc</kbd></dt><dd>close a dialog</dd>
      </dl>
    </Dialog>
  );
}
