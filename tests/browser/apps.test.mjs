// A real web app, JupyterLab, on an origin of its own: its WebSockets, who gets to it, and what it cannot reach.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { inUse, visit } from "./support/browser.mjs";
import { Deployment, until } from "./support/programs.mjs";

/** Where `cargo xtask test` put it. */
const JUPYTER = process.env.WARREN_JUPYTER ?? new URL("../../target/jupyter", import.meta.url).pathname;

let deployment, browser, alice, jupyter, port;

before(async () => {
  deployment = await Deployment.start("--wildcard-access-url", "*.apps.localhost");
  ({ browser, alice } = await inUse(deployment));
  port = await freePort();
  jupyter = deployment.spawn(`${JUPYTER}/bin/jupyter-lab`, [
    "--no-browser", "--allow-root", "--ip=127.0.0.1", `--port=${port}`, "--ServerApp.port_retries=0", "--IdentityProvider.token=",
    "--ServerApp.allow_remote_access=True", `--ServerApp.root_dir=${deployment.folder}`, "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
  ], { HOME: deployment.folder, PATH: `${JUPYTER}/bin:${process.env.PATH}` });
  await until(async () => (await fetch(`http://127.0.0.1:${port}/api`).catch(() => undefined))?.ok, "JupyterLab is there", () => jupyter.said);
  alice.page.setDefaultTimeout(60_000);
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
});

test("a notebook runs, by its WebSockets", async () => {
  const app = await share("owner");
  const { page } = alice;
  await page.goto(app);
  await page.locator('.jp-LauncherCard[data-category="Notebook"]').first().click();
  await page.locator(".jp-Notebook .cm-content").first().click();
  await page.keyboard.type("print(6 * 7)");
  await page.keyboard.press("Shift+Enter");
  await page.locator(".jp-OutputArea-output", { hasText: "42" }).first().waitFor();
  assert.equal(new URL(page.url()).origin, new URL(app).origin);
});

test("an app reaches neither the dashboard nor another app", async () => {
  const other = await share("owner", "other");
  const { page } = alice;
  // Both have let this browser in.
  await page.goto(other);
  await page.goto(await share("owner"));
  const reads = (url) => page.evaluate((to) => fetch(to, { credentials: "include" }).then(() => "read", () => "refused"), url);
  assert.equal(await reads(`${deployment.url}/api/v1/me`), "refused");
  assert.equal(await reads(`${other}api`), "refused");
  const answered = page.waitForResponse((answer) => answer.url() === `${other}api/kernels`);
  await page.evaluate((to) => fetch(to, { method: "POST", mode: "no-cors", credentials: "include" }).catch(() => {}), `${other}api/kernels`);
  assert.equal((await answered).status(), 403);
  const socket = (url) => page.evaluate((to) => new Promise((done) => {
    const socket = new WebSocket(to);
    socket.onopen = () => done("open");
    socket.onerror = () => done("refused");
  }), url.replace(/^http/, "ws"));
  assert.equal(await socket(`${other}api/events/subscribe`), "refused");
  assert.equal(await socket(`${deployment.url}/api/v1/workspaces/alice/dev/terminal`), "refused");
});

test("it is for those whom it is shared with", async () => {
  await deployment.api("POST", "/users", { username: "bob", password: "battery staple horse", role: "member" });
  const bob = await visit(browser, deployment.url);
  // From the app by way of the login page, and back.
  await bob.page.goto(await share("signed_in"));
  await bob.page.getByLabel("Name").fill("bob");
  await bob.page.getByLabel("Password").fill("battery staple horse");
  await bob.page.getByRole("button", { name: "Log in" }).click();
  await bob.page.locator("#jp-top-panel").waitFor({ timeout: 60_000 });
  const refused = await bob.page.goto(await share("owner"));
  assert.equal(refused.status(), 404);
  await bob.page.getByRole("heading", { name: "There is no such app for you" }).waitFor();
  const nobody = await visit(browser, deployment.url);
  await nobody.page.goto(await share("public"));
  await nobody.page.locator("#jp-top-panel").waitFor({ timeout: 60_000 });
});

async function share(sharing, slug = "notebook") {
  const { url } = await deployment.api("PUT", `/workspaces/me/dev/apps/${slug}`, { port, sharing });
  return url;
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
