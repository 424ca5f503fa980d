// What is drawn: the paths of a tunnel in use, as they change, and the relays on a map.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inUse, picture } from "./support/browser.mjs";
import { Deployment, until } from "./support/programs.mjs";

/** A relay elsewhere that nobody runs: it is drawn all the same, as failing. */
const ELSEWHERE = { Regions: { 7: {
  RegionID: 7, RegionCode: "nue", RegionName: "Nuremberg", Latitude: 49.4, Longitude: 11.1,
  Nodes: [{ Name: "7a", RegionID: 7, HostName: "127.0.0.1", DERPPort: 1, STUNPort: -1 }],
} } };

let deployment, browser, alice;

before(async () => {
  deployment = new Deployment();
  const map = join(deployment.folder, "relays.json");
  writeFileSync(map, JSON.stringify(ELSEWHERE));
  await deployment.startServer("--derp-config-path", map);
  ({ browser, alice } = await inUse(deployment));
});
after(async () => {
  await browser?.close();
  await deployment?.stop();
});

test("the plots of a tunnel in use go on by themselves", async () => {
  const { page, context } = alice;
  const terminal = await context.newPage();
  await terminal.goto("/workspaces/alice/dev/terminal");
  await terminal.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await terminal.locator(".xterm-helper-textarea").focus();
  await terminal.keyboard.type("while sleep 0.2; do seq 100; done\n");
  await page.goto("/workspaces/alice/dev");
  await page.getByText("this server").first().waitFor();
  await page.getByText("What happened").waitFor();
  const chart = (name) => page.locator("figure.chart", { has: page.getByText(name, { exact: true }) });
  for (const name of ["Path", "Latency", "Throughput"]) await chart(name).waitFor();
  for (const name of ["Latency", "Throughput"]) await chart(name).locator("canvas").waitFor();
  const drawn = () => chart("Throughput").locator("canvas").evaluate((canvas) => canvas.toDataURL());
  const [before, words] = [await drawn(), await chart("Throughput").innerText()];
  assert.match(words, /received.*bit\/s/s);
  await until(async () => (await drawn()) !== before, "the plot has another point");
  await until(() => chart("Throughput").locator("canvas").evaluate(hasLine), "the plot has a line");
  // In other colours it is drawn anew: at once with all that it had.
  await page.emulateMedia({ colorScheme: "dark" });
  await page.evaluate(() => new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then))));
  assert.ok(await chart("Throughput").locator("canvas").evaluate(hasLine), "dark plots have a line as well");
  await picture(page, "workspace-live");
  await terminal.close();
  assert.deepEqual(alice.faults, []);
});

test("relays whose place is known are on the map, and those that fail say why", async () => {
  const { page } = alice;
  await page.goto("/relays");
  await page.getByRole("img", { name: /Map of relays\. Nuremberg: failing/ }).waitFor();
  await page.getByRole("row", { name: /Nuremberg.*failing/ }).getByText(/relay: /).waitFor();
  await page.getByRole("cell", { name: /in this server/ }).waitFor();
  await picture(page, "relays-map");
  assert.deepEqual(alice.faults, []);
});

/** Whether the canvas of a plot has a line in the colour of lines. */
function hasLine(canvas) {
  const brush = document.createElement("canvas").getContext("2d");
  brush.fillStyle = getComputedStyle(canvas).getPropertyValue("--accent");
  brush.fillRect(0, 0, 1, 1);
  const wanted = brush.getImageData(0, 0, 1, 1).data;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) {
    const near = [0, 1, 2].every((part) => Math.abs(data[i + part] - wanted[part]) < 30);
    if (near && data[i + 3] > 200) found += 1;
  }
  return found > 50;
}
