// Chromium, and what every page has to keep to: no error on the console, no request elsewhere, nothing that keeps
// people out.
import { AxeBuilder } from "@axe-core/playwright";
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

/** Debian's, or another that the environment names. */
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Where pictures are kept. */
const PICTURES = process.env.WARREN_SCREENSHOTS ?? new URL("../../../target/screenshots", import.meta.url).pathname;
const SIZES = { wide: { width: 1280, height: 800 }, phone: { width: 375, height: 740 } };

/** Nothing of these asks anybody but our server, and no sandbox is needed in one. */
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

export async function launch() {
  return chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
}

/** A person's browser at a server: everything that it should not have done is in `faults`. */
export async function visit(browser, origin, options = {}) {
  const context = await browser.newContext({ baseURL: origin, viewport: SIZES.wide, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const faults = [];
  const own = new URL(origin);
  const isOwn = (url) => {
    const { protocol, hostname } = new URL(url);
    return protocol === "data:" || protocol === "blob:" || hostname === own.hostname || hostname.endsWith(`.${own.hostname}`);
  };
  page.on("console", (message) => {
    const told = `${message.text()} ${message.location().url}`;
    if (["error", "warning"].includes(message.type()) && !page.expected?.test(told)) {
      faults.push(`console: ${message.text()} (${message.location().url})`);
    }
  });
  page.on("pageerror", (error) => faults.push(`error: ${error.stack ?? error}`));
  context.on("request", (request) => {
    if (!isOwn(request.url())) faults.push(`asked elsewhere: ${request.url()}`);
  });
  page.on("websocket", (socket) => {
    if (!isOwn(socket.url().replace(/^ws/, "http"))) faults.push(`asked elsewhere: ${socket.url()}`);
  });
  return { context, page, faults };
}

/** A server in use: alice has set it up, her workspace "dev" is connected, and her browser is logged in. */
export async function inUse(deployment) {
  await deployment.setUp("alice", "correct horse battery");
  const { command } = await deployment.api("POST", "/workspaces", { name: "dev" });
  deployment.paste(command);
  const browser = await launch();
  const alice = await visit(browser, deployment.url);
  await deployment.logIn(alice.context);
  return { browser, alice };
}

/** Fails with everything that axe calls serious or critical on the page as it is now. */
export async function accessible(page, name) {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]).analyze();
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = grave.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.slice(0, 4).map((node) => `  ${node.html}\n    ${node.failureSummary}`).join("\n")}`);
  assert.equal(told.length, 0, `${name}:\n${told.join("\n")}`);
}

/** Pictures of the page in both sizes and both colours, each checked by axe, and none wider than its screen. */
export async function picture(page, name) {
  mkdirSync(PICTURES, { recursive: true });
  for (const [size, viewport] of Object.entries(SIZES)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.evaluate(() => new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then))));
      await page.screenshot({ path: join(PICTURES, `${name}-${size}-${colorScheme}.png`), fullPage: true });
      await accessible(page, `${name}, ${size}, ${colorScheme}`);
    }
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(over <= 0, `${name} is ${over} px wider than a ${size} screen`);
  }
  await page.setViewportSize(SIZES.wide);
  await page.emulateMedia({ colorScheme: "light" });
}
