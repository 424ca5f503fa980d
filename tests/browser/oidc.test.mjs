// Logging in by an OpenID Connect provider, to the dashboard and for a program, by somebody who has no password here.
import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, picture, visit } from "./support/browser.mjs";
import { Issuer } from "./support/issuer.mjs";
import { Deployment, done } from "./support/programs.mjs";

let issuer, deployment, browser, carol;
const secret = join(tmpdir(), `warren-oidc-${process.pid}`);

before(async () => {
  issuer = await Issuer.start();
  writeFileSync(secret, issuer.clientSecret, { mode: 0o600 });
  deployment = await Deployment.start("--oidc-issuer-url", issuer.url, "--oidc-client-id", issuer.clientId,
    "--oidc-client-secret-file", secret, "--oidc-name", "Example", "--oidc-sign-up");
  await deployment.setUp("alice", "correct horse battery");
  browser = await launch();
  carol = await visit(browser, deployment.url);
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
  await issuer?.stop();
  rmSync(secret, { force: true });
});

async function atProvider(page, who) {
  await page.getByRole("link", { name: "Log in with Example" }).click();
  await page.getByRole("heading", { name: "The provider" }).waitFor();
  await page.getByLabel("Who are you?").fill(who);
  await page.getByRole("button", { name: "Go on" }).click();
}

test("a program is let in by somebody who logs in at the provider on the way", async () => {
  const { page } = carol;
  const { program, link } = await deployment.logInByBrowser("carol");
  await page.goto(link);
  await page.getByRole("heading", { name: "Confirm a login" }).waitFor();
  await picture(page, "login-confirm-oidc");
  await atProvider(page, "carol");
  await page.getByRole("button", { name: "Let it act as carol" }).waitFor();
  assert.equal(await page.getByLabel("Code").inputValue(), link.split("#")[1]);
  assert.equal(await page.getByLabel("Password").count(), 0);
  await picture(page, "login-confirm-known");
  await page.getByRole("button", { name: "Let it act as carol" }).click();
  await page.getByRole("heading", { name: "The program is logged in" }).waitFor();
  await done(program);
  assert.match(program.said, /as carol/);
});

test("the session is a cookie that no script reads and no other site sends", async () => {
  const [session, ...others] = await carol.context.cookies(deployment.url);
  assert.deepEqual(others, [], "what was kept for the way to the provider is gone");
  assert.deepEqual([session.name, session.httpOnly, session.sameSite, session.path], ["warren_session", true, "Lax", "/"]);
});

test("whoever logs out and in again by the provider is the same person, and led where one wanted to go", async () => {
  const { page } = carol;
  await page.goto("/workspaces");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await page.goto("/login?next=%2Frelays");
  await picture(page, "login-oidc");
  await atProvider(page, "carol");
  await page.getByRole("heading", { name: "Relays" }).waitFor();
  const { users } = await deployment.api("GET", "/users");
  assert.deepEqual(users.map(({ name }) => name).sort(), ["alice", "carol"]);
});

test("an answer that nobody asked for logs nobody in", async () => {
  const eve = await visit(browser, deployment.url);
  await eve.page.goto("/api/v1/login/oidc/callback?state=x&code=y");
  await eve.page.getByRole("alert").getByText("oidc login unknown").waitFor();
  assert.deepEqual(await eve.context.cookies(deployment.url), []);
  assert.deepEqual(eve.faults, []);
  await eve.context.close();
});

test("nothing went wrong on the way", () => {
  // The provider is on this host as well.
  assert.deepEqual(carol.faults, []);
});
