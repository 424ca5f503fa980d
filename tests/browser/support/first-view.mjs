// The first view of the dashboard, in a browser that has nothing kept: what it weighs, and when it can be used. Started by
// itself, `first-view.mjs URL TIMES` prints that as JSON: `cargo xtask bench dashboard` does.
import { pathToFileURL } from "node:url";
import { launch, visit } from "./browser.mjs";

/** Opens the login page so often; the bytes of its files, and the milliseconds until there was a form to fill in. */
export async function firstView(browser, origin, times) {
  const seen = { bytes: 0, files: 0, interactive_ms: [], faults: [] };
  for (let n = 0; n < times; n++) {
    const { context, page, faults } = await visit(browser, origin);
    const asked = [];
    page.on("requestfinished", (request) => {
      if (!request.url().includes("/api/")) asked.push(request);
    });
    seen.interactive_ms.push(await interactive(page));
    await page.waitForLoadState("networkidle");
    const sizes = await Promise.all(asked.map((request) => request.sizes()));
    seen.bytes = sizes.reduce((sum, size) => sum + size.responseBodySize, 0);
    seen.files = asked.length;
    seen.faults.push(...faults);
    await context.close();
  }
  return seen;
}

async function interactive(page) {
  await page.addInitScript(() => {
    const seen = new MutationObserver(() => {
      if (document.querySelector("form input")) window.usableAt ??= performance.now();
    });
    seen.observe(document, { childList: true, subtree: true });
  });
  await page.goto("/login");
  await page.getByLabel("Name").waitFor();
  return page.evaluate(() => window.usableAt);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const browser = await launch();
  console.log(JSON.stringify(await firstView(browser, process.argv[2], Number(process.argv[3]))));
  await browser.close();
}
