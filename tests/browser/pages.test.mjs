// Every page of a server that is in use: as it looks, what it weighs, and what it does when the server goes away.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { inUse, picture, visit } from "./support/browser.mjs";
import { firstView } from "./support/first-view.mjs";
import { Deployment } from "./support/programs.mjs";

let deployment, browser, alice;

before(async () => {
  deployment = await Deployment.start();
  ({ browser, alice } = await inUse(deployment));
  await deployment.api("POST", "/users", { username: "bob", password: "battery staple horse", role: "member" });
  await deployment.api("POST", "/users", { username: "carol", password: "battery staple horse", role: "admin" });
  await deployment.api("POST", "/workspaces", { name: "old" });
  await deployment.api("PUT", "/workspaces/me/dev/apps/notes", { name: "Notes", port: 8888, sharing: "signed_in" });
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
});

const PAGES = [
  ["workspaces", "/workspaces", "row", /dev connected/],
  ["workspace", "/workspaces/alice/dev", "heading", "From your machine"],
  ["workspace-offline", "/workspaces/alice/old", "heading", "From your machine"],
  ["relays", "/relays", "cell", /in this server/],
  ["health", "/health", "heading", /database/i],
  ["people", "/people", "cell", /bob/],
  ["audit", "/audit", "cell", /dev/],
  ["settings", "/settings", "cell", /--http-address/],
  ["replicas", "/replicas", "cell", /this one/],
  ["api", "/api/docs", "heading", "Workspaces"],
  ["not-found", "/no/such/page", "heading", "There is no such page"],
];

for (const [name, path, role, words] of PAGES) {
  test(`the page "${name}"`, async () => {
    const { page } = alice;
    page.expected = name === "not-found" ? /no\/such\/page/ : undefined;
    await page.goto(path);
    await page.getByRole(role, { name: words }).first().waitFor();
    await page.getByText("Loading").first().waitFor({ state: "detached" });
    await picture(page, name);
    assert.deepEqual(alice.faults, []);
  });
}

test("who shares an app without an origin of its own reads what that costs", async () => {
  const { page } = alice;
  await page.goto("/workspaces/alice/dev");
  await page.getByRole("link", { name: "shut off from their own scripts" }).click();
  await page.getByRole("heading", { name: "Web apps" }).waitFor();
  assert.equal(new URL(page.url()).hash, "#web-apps");
  assert.deepEqual(alice.faults, []);
});

test("nobody is offered what is not theirs to do", async () => {
  const { page, context, faults } = await as("carol");
  await page.goto("/workspaces/alice/dev");
  await page.getByRole("button", { name: "Delete" }).waitFor();
  await page.getByRole("heading", { name: "Shared with" }).waitFor();
  // An admin looks after a workspace, and neither gets in nor lets others in.
  for (const [role, name] of [["link", "Open a terminal"], ["button", "New agent token"], ["button", "Add an app"], ["button", "Share"], ["button", "Leave"]]) {
    assert.equal(await page.getByRole(role, { name, exact: true }).count(), 0, name);
  }
  await page.goto("/people");
  await page.getByRole("button", { name: "Change bob" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Change alice" }).count(), 0, "owners look after owners");
  await page.goto("/workspaces/alice/dev");
  await deployment.api("PUT", "/workspaces/me/dev/shares/carol");
  await page.getByRole("link", { name: "Open a terminal" }).waitFor();
  await page.getByRole("button", { name: "Leave" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Leave" }).click();
  await page.getByRole("heading", { name: "Workspaces" }).waitFor();
  assert.deepEqual((await deployment.api("GET", "/workspaces/me/dev/shares")).shares, []);
  assert.deepEqual(faults, []);
  await context.close();
});

test("the guide is read without any script, and all its links lead somewhere", async () => {
  const { page } = alice;
  await page.goto("/docs");
  await page.getByRole("heading", { level: 1, name: "Start" }).waitFor();
  await picture(page, "guide");
  const seen = new Set();
  for (const queue = ["/docs"]; queue.length > 0; ) {
    const path = queue.pop();
    if (seen.has(path)) continue;
    seen.add(path);
    const answer = await page.goto(path);
    assert.equal(answer.status(), 200, path);
    const links = await page.$$eval("a[href^='/docs']", (found) => found.map((link) => link.getAttribute("href").split("#")[0]));
    queue.push(...links);
  }
  assert.ok(seen.size >= 5, `${seen.size} pages`);
});

test("the first view is light and soon there", async (t) => {
  const { bytes, files, interactive_ms: times, faults } = await firstView(browser, deployment.url, 5);
  times.sort((a, b) => a - b);
  t.diagnostic(`first view: ${bytes} bytes, interactive after ${times[0]} ms, the median of five is ${times[2]} ms`);
  assert.ok(times[0] > 0 && times[0] < 10_000, `${times}`);
  assert.ok(files > 2 && bytes > 10_000 && bytes <= 60 * 1024, `${bytes} bytes`);
  assert.deepEqual(faults, []);
});

test("while the server is away a banner says so, and what changed is there when it is back", async () => {
  const { page } = alice;
  page.expected = /ERR_|Failed to (load|fetch)|50[0-9]/;
  await page.goto("/workspaces");
  await page.getByRole("row", { name: /dev connected/ }).waitFor();
  await deployment.stopServer("SIGKILL");
  const banner = page.getByText("Reconnecting: what you see may be out of date");
  await banner.waitFor();
  await picture(page, "reconnecting");
  await deployment.startServer();
  await banner.waitFor({ state: "detached" });
  await page.getByRole("row", { name: /dev connected/ }).waitFor();
  page.expected = undefined;
});

test("nothing went wrong on the way", () => {
  assert.deepEqual(alice.faults, []);
});

/** The browser of somebody else, who is logged in. */
async function as(name) {
  const visitor = await visit(browser, deployment.url);
  await visitor.page.goto("/login");
  await visitor.page.getByLabel("Name").fill(name);
  await visitor.page.getByLabel("Password").fill("battery staple horse");
  await visitor.page.getByRole("button", { name: "Log in" }).click();
  await visitor.page.getByRole("heading", { name: "Workspaces" }).waitFor();
  return visitor;
}
