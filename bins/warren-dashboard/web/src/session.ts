// Who is logged in. The session itself is in a cookie that no script can read.
import { effect, signal } from "@preact/signals";
import { Failure, get, post, whenLoggedOut } from "./api/client";
import type { BuildInfo, Grant, Me, User } from "./api/types";
import { go, path } from "./router";

/** The person; null if nobody is logged in, undefined until that is known. */
export const user = signal<User | null | undefined>(undefined);
/** What the server is. */
export const build = signal<BuildInfo | undefined>(undefined);

/** Whether there may be a session: no secret, just what saves a question whose answer is known. */
const HINT = "warren-logged-in";

/** The browser leaves to log in elsewhere, and is logged in when it comes back. */
export function leave(): void {
  localStorage.setItem(HINT, "1");
}

/** Asks who one is, once at the start. */
export async function restore(): Promise<void> {
  void get<BuildInfo>("/buildinfo").then((info) => (build.value = info), () => {});
  effect(() => {
    if (user.value) localStorage.setItem(HINT, "1");
    else if (user.value === null) localStorage.removeItem(HINT);
  });
  const refused = path.value === "/login" && new URLSearchParams(location.search).has("error");
  if (refused || (["/login", "/setup", "/api/docs"].includes(path.value) && !localStorage.getItem(HINT))) {
    user.value = null;
    return;
  }
  await whoAmI();
}

async function whoAmI(): Promise<void> {
  try {
    user.value = (await get<Me>("/me")).user;
  } catch (error) {
    // A server that does not answer has not logged anybody out.
    if (error instanceof Failure && error.status === 0) {
      setTimeout(() => void whoAmI(), 2_000);
      return;
    }
    user.value = null;
  }
}

export async function logIn(username: string, password: string): Promise<void> {
  const grant = await post<Grant>("/login", { username, password, cookie: true });
  user.value = grant.user;
}

export async function setUp(token: string, username: string, password: string): Promise<void> {
  const grant = await post<Grant>("/setup", { token, username, password, cookie: true });
  user.value = grant.user;
  if (build.value) build.value = { ...build.value, setup_required: false };
}

export async function logOut(): Promise<void> {
  try {
    await post("/logout");
  } catch (error) {
    if (!(error instanceof Failure && error.status === 401)) throw error;
  }
  user.value = null;
  go("/login");
}

/** Whether the person sees and changes what belongs to others. */
export function administers(): boolean {
  return user.value?.role === "owner" || user.value?.role === "admin";
}

/** Where to go after logging in: a page of this dashboard, never elsewhere. */
export function wanted(): string {
  const next = new URLSearchParams(location.search).get("next") ?? "/";
  return /^\/(?![/\\])/.test(next) ? next : "/";
}

whenLoggedOut(() => {
  user.value = null;
});

/** The address of the login page that leads back here. */
export function loginAddress(): string {
  return path.value === "/" || path.value === "/login" ? "/login" : `/login?next=${encodeURIComponent(path.value)}`;
}
