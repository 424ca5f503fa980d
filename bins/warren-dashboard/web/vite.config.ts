import { defineConfig } from "vite";
import { land } from "./build/land.mjs";

// `npm run dev` shows changes as they are made, with the API of a server on this machine.
const server = process.env.WARREN_URL ?? "http://127.0.0.1:7080";

export default defineConfig({
  plugins: [land()],
  build: {
    target: "es2022",
    // Nothing is written into the page, which the server's content security policy would refuse.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
  },
  server: { proxy: { "/api": { target: server, ws: true } } },
});
