// Logging in: by password, for a program that waits, out again, and by keyboard alone.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, picture, visit } from "./support/browser.mjs";
import { Deployment, done } from "./support/programs.mjs";

const PASSWORD = "correct horse battery";
let deployment, browser, alice;

before(async () => {
  deployment = await Deployment.start();
  await deployment.setUp("alice", PASSWORD);
  browser = await launch();
  alice = await visit(browser, deployment.url);
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
});

test("a wrong password is told in a sentence, the right one leads where one wanted to go", async () => {
  const { page } = alice;
  page.expected = /401/;
  await page.goto("/people");
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await picture(page, "login");
  await page.getByLabel("Name").fill("alice");
  await page.getByLabel("Password").fill("guessed");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").getByText("The name or the password is wrong").waitFor();
  await picture(page, "login-refused");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "People and tokens" }).waitFor();
  page.expected = undefined;
});

test("`warren login` is confirmed in the browser", async () => {
  const { page } = alice;
  const { program, link } = await deployment.logInByBrowser("alice");
  await page.goto(link);
  assert.equal(await page.getByLabel("Code").inputValue(), link.split("#")[1]);
  await picture(page, "login-confirm-logged-in");
  await page.getByRole("button", { name: "Let it act as alice" }).click();
  await page.getByRole("heading", { name: "The program is logged in" }).waitFor();
  await picture(page, "login-confirmed");
  await done(program);
});

test("`warren login` is confirmed by a password where nobody is logged in", async () => {
  const { context, page, faults } = await visit(browser, deployment.url);
  const { program, link } = await deployment.logInByBrowser("again");
  await page.goto(link);
  await page.getByLabel("Name").fill("alice");
  await picture(page, "login-confirm");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Let it act as me" }).click();
  await page.getByRole("heading", { name: "The program is logged in" }).waitFor();
  await done(program);
  assert.deepEqual(faults, []);
  await context.close();
});

test("the keyboard leads past the navigation, into the search, and through a dialog", async () => {
  const { page } = alice;
  await deployment.api("POST", "/workspaces", { name: "dev" });
  await page.goto("/workspaces");
  await page.getByRole("row", { name: /dev/ }).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "Skip to the page");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "New workspace");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.type), "search");
  await page.keyboard.press("Tab");
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await picture(page, "help");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
});

test("a phone has the navigation behind a button", async () => {
  const { page } = alice;
  await page.setViewportSize({ width: 375, height: 740 });
  const link = page.getByRole("link", { name: "People and tokens" });
  assert.equal(await link.isVisible(), false);
  await page.getByRole("button", { name: "Menu" }).click();
  await picture(page, "menu");
  await page.setViewportSize({ width: 375, height: 740 });
  await link.click();
  await page.getByRole("heading", { name: "People and tokens" }).waitFor();
  assert.equal(await link.isVisible(), false, "the menu closes by itself");
  await page.setViewportSize({ width: 1280, height: 800 });
});

test("whoever logs out is out, also in another tab", async () => {
  const { page, context } = alice;
  const other = await context.newPage();
  await other.goto("/workspaces");
  await other.getByRole("row", { name: /dev/ }).waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await other.getByRole("heading", { name: "Log in" }).waitFor();
  await other.close();
});

test("nothing went wrong on the way", () => {
  assert.deepEqual(alice.faults, []);
});

function focused(page) {
  return page.evaluate(() => document.activeElement.textContent);
}
