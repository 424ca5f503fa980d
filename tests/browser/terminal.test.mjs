// A terminal in the browser: a whole-screen program survives a reload of the page and a restart of the server.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inUse, picture, visit } from "./support/browser.mjs";
import { Deployment, until } from "./support/programs.mjs";

let deployment, browser, alice;

before(async () => {
  deployment = await Deployment.start();
  ({ browser, alice } = await inUse(deployment));
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
});

test("what is typed reaches the workspace, wide letters and all", async () => {
  const { page } = alice;
  await page.goto("/workspaces/alice/dev");
  await page.getByRole("link", { name: "Open a terminal" }).click();
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await type(page, "printf '%s-%s %s\\n' wide 漢字 $((6*7))\n");
  await shows(page, /wide-漢字 42/);
  assert.match(page.url(), /session=[0-9a-f-]{36}/);
});

test("vim is on the same screen after a reload", async () => {
  const { page } = alice;
  // It leaves nothing in the home of whoever runs this: another run's swap file would have vim ask about it.
  await type(page, "vim -u NONE -N -n -i NONE notes.txt\n");
  await shows(page, /^~$/m);
  await type(page, "ia line that is not saved");
  await page.keyboard.press("Escape");
  await shows(page, /a line that is not saved/);
  // The line is there before the key that ends it has come back.
  await until(async () => !/-- INSERT --/.test(await screen(page)), "vim has left its insert mode", () => "");
  const before = await screen(page);
  await page.reload();
  await shows(page, /a line that is not saved/);
  assert.equal(await screen(page), before);
  await picture(page, "terminal");
});

test("who has the link looks on", async () => {
  const { page, context } = alice;
  const other = await context.newPage();
  await other.goto(`${page.url()}&mode=watch`);
  await shows(other, /a line that is not saved/);
  await page.getByText("2 look at it").waitFor();
  await type(page, "o and another");
  await shows(other, /and another/);
  await other.keyboard.type("watchers do not type");
  await page.keyboard.press("Escape");
  await other.close();
  assert.doesNotMatch(await screen(page), /watchers do not type/);
});

test("a restart of the server loses nothing: one types on", async () => {
  const { page } = alice;
  page.expected = /WebSocket|ERR_|Failed to (load|fetch)|50[0-9]/;
  await deployment.stopServer("SIGKILL");
  await page.getByRole("status").getByText("reconnecting", { exact: true }).waitFor();
  await deployment.startServer();
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await shows(page, /and another/);
  await type(page, "oafter the restart");
  await page.keyboard.press("Escape");
  await shows(page, /after the restart/);
  page.expected = undefined;
});

test("the end of the program is told, and a new one is a key away", async () => {
  const { page } = alice;
  await type(page, ":q!\n");
  await type(page, "exit 3\n");
  await page.getByText("The program has ended with status 3.").waitFor();
  await picture(page, "terminal-ended");
  await page.getByRole("button", { name: "Start a new one" }).click();
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await type(page, "echo $((40+2))\n");
  await shows(page, /^42$/m);
});

test("what is pasted arrives whole, however much it is", async () => {
  const { page } = alice;
  const pasted = "0123456789abcde\n".repeat(20_000);
  // Without the echo, which the kernel may write after the program's own words.
  await type(page, "stty -echo; echo $((40+4)); wc -c; stty echo\n");
  await shows(page, /^44$/m);
  await page.evaluate((text) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    const area = document.querySelector(".xterm-helper-textarea");
    area.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  }, pasted);
  await page.keyboard.press("Control+D");
  await shows(page, new RegExp(`^${pasted.length}$`, "m"));
  // All rows are to be seen, down to the last.
  const [rows, place] = await Promise.all([".xterm-rows", ".terminal-place"].map((part) => page.locator(part).boundingBox()));
  assert.ok(rows.y + rows.height <= place.y + place.height, `${JSON.stringify(rows)} in ${JSON.stringify(place)}`);
});

test("what is selected is copied, and `Ctrl+C` interrupts when nothing is", async () => {
  const { page, context } = alice;
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await type(page, "echo copy-me-$((40+6)); sleep 1000\n");
  await shows(page, /^copy-me-46$/m);
  const row = page.locator(".xterm-rows > div").filter({ hasText: /^copy-me-46/ });
  // xterm.js takes clicks above its rows.
  await row.dblclick({ position: { x: 20, y: 5 }, force: true });
  await page.keyboard.press("Control+C");
  const copied = () => page.evaluate(() => navigator.clipboard.readText());
  await until(async () => (await copied()) === "copy-me-46", "it is copied", () => "");
  assert.doesNotMatch(await screen(page), /\^C/);
  await page.keyboard.press("Control+C");
  await shows(page, /\^C/);
});

test("a phone has the keys that its keyboard lacks", async () => {
  const { context, page, faults } = await visit(browser, deployment.url, {
    viewport: { width: 375, height: 740 }, hasTouch: true, isMobile: true, storageState: await alice.context.storageState(),
  });
  await page.goto("/workspaces/alice/dev/terminal");
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await type(page, "cat -v\n");
  for (const name of ["Esc", "Up"]) await page.getByRole("button", { name, exact: true }).tap();
  await type(page, "\n");
  await shows(page, /^\^\[\^\[\[A$/m);
  // With the next letter, and no longer.
  await page.getByRole("button", { name: "Ctrl" }).tap();
  await type(page, "c");
  await type(page, "echo $((40+5))\n");
  await shows(page, /^45$/m);
  await picture(page, "terminal-touch");
  assert.deepEqual(faults, []);
  await context.close();
});

test("where only browsers may come in, the terminal goes on and `warren ssh` is refused", async () => {
  const { page } = alice;
  const warren = async (...args) => {
    const child = deployment.spawn("warren", ["--config-dir", join(deployment.folder, "alice"), ...args]);
    await until(() => child.exitCode !== null, `warren ${args[0]} ends`, () => child.said);
    return child;
  };
  assert.equal((await warren("login", deployment.url, "--token", deployment.token)).exitCode, 0);
  const allowed = await warren("ssh", "dev", "echo let in");
  assert.deepEqual([allowed.exitCode, /let in/.test(allowed.said)], [0, true], allowed.said);
  page.expected = /WebSocket|ERR_|Failed to (load|fetch)|50[0-9]/;
  await deployment.stopServer();
  await deployment.startServer("--browser-only");
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await type(page, "echo $((40+3))\n");
  await shows(page, /^43$/m);
  page.expected = undefined;
  const refused = await warren("ssh", "dev", "echo let in");
  assert.equal(refused.exitCode, 255, refused.said);
  assert.match(refused.said, /browser/);
});

test("nothing went wrong on the way", () => {
  assert.deepEqual(alice.faults, []);
});

async function type(page, text) {
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type(text);
}

async function screen(page) {
  const rows = await page.locator(".xterm-rows > div").allInnerTexts();
  return rows.map((row) => row.replaceAll("\u00a0", " ").trimEnd()).join("\n").trimEnd();
}

async function shows(page, pattern) {
  await until(async () => pattern.test(await screen(page)), `the terminal shows ${pattern}`, () => "");
}
