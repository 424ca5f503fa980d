// A new server in a real browser: the owner, the first workspace, its agent, and back again.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, picture, visit } from "./support/browser.mjs";
import { Deployment } from "./support/programs.mjs";

let deployment, browser, alice;

before(async () => {
  deployment = await Deployment.start();
  browser = await launch();
  alice = await visit(browser, deployment.url);
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
});

test("the one-time link makes the owner", async () => {
  const { page } = alice;
  await page.goto("/");
  assert.equal(new URL(page.url()).pathname, "/setup", "a server without an owner shows how to get one");
  await page.getByText("Open the one-time link").waitFor();
  await picture(page, "setup-without-link");
  await page.goto(deployment.info.setup_url);
  await page.getByLabel("Name").waitFor();
  assert.ok(!page.url().includes("warren_setup_"), "the token stays neither in the address nor in the history");
  await picture(page, "setup");
  await page.getByLabel("Name").fill("alice");
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Make the owner" }).click();
  await page.getByRole("heading", { name: "Your first workspace" }).waitFor();
});

test("the command of the first workspace connects it, and the page says so by itself", async () => {
  const { page } = alice;
  await picture(page, "workspaces-empty");
  await page.getByLabel("Name").fill("dev");
  await page.getByRole("button", { name: "Create" }).click();
  const command = await page.getByLabel("command that starts the agent", { exact: true }).innerText();
  assert.match(command, /^WARREN_AGENT_TOKEN=warren_agent_\S+ warren-agent --url /);
  await page.getByText("Waiting for the agent").waitFor();
  await picture(page, "workspaces-waiting");
  deployment.paste(command);
  await page.getByRole("heading", { name: "Connected", exact: true }).waitFor();
  await picture(page, "workspaces-connected");
  await page.getByRole("button", { name: "To the list" }).click();
  await page.getByRole("row", { name: /dev connected/ }).waitFor();
  await picture(page, "workspaces");
});

test("nothing went wrong on the way", () => {
  assert.deepEqual(alice.faults, []);
});
