// The built programs, started for a test and ended with it.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Where cargo put the programs; `cargo xtask test` says so. */
const PROGRAMS = process.env.WARREN_PROGRAMS ?? new URL("../../../target/debug", import.meta.url).pathname;
/** For a program to start or to end on a busy machine. */
const PATIENCE_MS = 20_000;

/** A server of its own, with its state in a folder of its own, and the agents that were started for it. */
export class Deployment {
  folder = mkdtempSync(join(tmpdir(), "warren-browser-"));
  children = new Set();
  port = 0;

  static async start(...args) {
    const deployment = new Deployment();
    await deployment.startServer(...args);
    return deployment;
  }

  async startServer(...args) {
    const ready = join(this.folder, "ready.json");
    rmSync(ready, { force: true });
    this.server = this.spawn("warren-server", [
      "--state-dir", join(this.folder, "server"), "--http-address", `127.0.0.1:${this.port}`,
      "--stun-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", "--ready-file", ready, ...args,
    ]);
    await until(() => existsSync(ready), "the server is ready", () => this.server.said);
    this.info = JSON.parse(readFileSync(ready, "utf8"));
    this.url = this.info.access_url;
    // A server that is started again has the same address.
    this.port = Number(new URL(this.url).port);
  }

  /** Makes the owner without a browser; `api` acts as it then. */
  async setUp(username, password) {
    this.owner = { username, password };
    this.token = (await this.api("POST", "/setup", { token: this.info.setup_token, username, password })).token;
  }

  async api(method, path, body) {
    const answer = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: { "Content-Type": "application/json", ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** Gives a browser the owner's session, as its login page would. */
  async logIn(context) {
    const page = await context.newPage();
    await page.goto(`${this.url}/login`);
    await page.getByLabel("Name").fill(this.owner.username);
    await page.getByLabel("Password").fill(this.owner.password);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Workspaces" }).waitFor();
    await page.close();
  }

  async stopServer(signal = "SIGTERM") {
    await end(this.server, signal);
    this.children.delete(this.server);
  }

  /** Runs the command that the dashboard shows, as a person would who pastes it into a shell. */
  paste(command) {
    const state = mkdtempSync(join(this.folder, "agent-"));
    return this.spawn("sh", ["-c", `exec env ${command}`], { WARREN_STATE_DIR: state, HOME: state });
  }

  spawn(program, args, env = {}) {
    const path = program.startsWith("warren") ? join(PROGRAMS, program) : program;
    const child = spawn(path, args, {
      env: { PATH: `${PROGRAMS}:${process.env.PATH}`, TERM: "xterm-256color", LANG: "C.UTF-8", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (child.said = (child.said + data).slice(-20_000)));
    child.on("error", (error) => (child.said += String(error)));
    this.children.add(child);
    return child;
  }

  /** `warren login` that waits to be confirmed in a browser, for a person with a folder of settings of this name. */
  async logInByBrowser(name) {
    const program = this.spawn("warren", ["login", this.url, "--config-dir", join(this.folder, name), "--browser"]);
    const shown = /\S+\/login#\S+/;
    await until(() => shown.test(program.said), "warren login shows its link", () => program.said);
    return { program, link: shown.exec(program.said)[0] };
  }

  async stop() {
    await Promise.all([...this.children].map((child) => end(child)));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until a program has ended well. */
export async function done(child) {
  await until(() => child.exitCode !== null, `${child.spawnargs[0]} ends`, () => child.said);
  if (child.exitCode !== 0) throw new Error(`${child.spawnargs.join(" ")}: ${child.exitCode}\n${child.said}`);
}

async function end(child, signal = "SIGTERM") {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
  await ended;
  clearTimeout(timer);
}

export async function until(condition, what, said = () => "") {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}\n${said()}`);
    await sleep(50);
  }
}
