// The user's guide: guide/*.md as plain pages under dist/docs/, without any script.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { marked } from "marked";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const guide = new URL("../../guide/", import.meta.url);
const dist = new URL("../dist/", import.meta.url);

const style = ["tokens", "base", "guide"].map((name) => read(`../src/styles/${name}.css`)).join("\n");
const styleName = `assets/guide-${createHash("sha256").update(style).digest("hex").slice(0, 8)}.css`;
writeFileSync(new URL(styleName, dist), style);

// The first line of a page is its title; the number before a file's name is its place.
const pages = readdirSync(guide)
  .filter((name) => name.endsWith(".md"))
  .sort()
  .map((name) => {
    const text = readFileSync(new URL(name, guide), "utf8");
    const slug = name.replace(/^\d+-/, "").replace(/\.md$/, "");
    return { slug, title: text.split("\n", 1)[0].replace(/^# /, ""), text };
  });

mkdirSync(new URL("docs/", dist), { recursive: true });
for (const [i, page] of pages.entries()) {
  const name = i === 0 ? "docs.html" : `docs/${page.slug}.html`;
  writeFileSync(new URL(name, dist), html(page, pages[i + 1]));
}

function address(page) {
  return page === pages[0] ? "/docs" : `/docs/${page.slug}`;
}

function html(page, next) {
  const links = pages
    .map((other) => `<a href="${address(other)}"${other === page ? ' aria-current="page"' : ""}>${escaped(other.title)}</a>`)
    .join("");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(page.title)} · Warren's guide</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/${styleName}">
</head>
<body>
<header><a class="brand" href="/docs"><img src="/icon.svg" alt="" width="24" height="24">Warren's guide</a><a href="/workspaces">Dashboard</a></header>
<div class="guide">
<nav aria-label="Pages of the guide">${links}</nav>
<main>${anchored(marked.parse(page.text, { async: false }))}${next ? `<p class="next"><a href="${address(next)}">Next: ${escaped(next.title)}</a></p>` : ""}</main>
</div>
</body>
</html>
`;
}

/** Gives headings names, so that an error's sentence can point at one, and lets wide parts scroll by keyboard. */
function anchored(text) {
  return text
    .replace(/<h2>(.*?)<\/h2>/g, (_, inner) => `<h2 id="${slugOf(inner)}">${inner}</h2>`)
    .replaceAll("<pre>", '<pre tabindex="0">')
    .replace(/<table>/g, '<div class="table" tabindex="0" role="group" aria-label="Table"><table>')
    .replaceAll("</table>", "</table></div>");
}

function slugOf(text) {
  return text.replace(/<[^>]*>|&[a-z#0-9]+;/g, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
}

function escaped(text) {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
}
