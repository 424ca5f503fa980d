// Writes each file of dist/ compressed beside it, where that is shorter: the server has nothing left to compress.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const TEXT = /\.(html|js|css|svg|json|txt|webmanifest)$/;
const dist = new URL("../dist/", import.meta.url).pathname;

for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !TEXT.test(entry.name)) continue;
  const path = join(entry.parentPath, entry.name);
  const bytes = readFileSync(path);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  keep(`${path}.br`, brotliCompressSync(bytes, { params }), bytes);
  keep(`${path}.gz`, gzipSync(bytes, { level: 9 }), bytes);
}

function keep(path, compressed, original) {
  if (compressed.length < original.length) writeFileSync(path, compressed);
}
