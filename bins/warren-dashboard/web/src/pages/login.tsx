// Logging in, and confirming that a program may act as oneself (`warren login`).
import { useEffect, useState } from "preact/hooks";
import { get, post } from "../api/client";
import type { LoginMethods } from "../api/types";
import { go, path, title } from "../router";
import { build, logIn, user, wanted } from "../session";
import { Field, Form } from "../ui/form";
import { Alone } from "./alone";

export function Login() {
  const [code, setCode] = useState(() => fragment());
  useEffect(() => {
    const changed = (): void => setCode(fragment());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  if (code !== undefined) return <Confirmation code={code} onLeave={() => setCode(undefined)} />;
  return <Password onCode={() => setCode("")} />;
}

/** Goes where one wanted to: apps, and what leads to them, are not pages of this dashboard. */
function onward(to: string): void {
  if (/^\/(@|api\/v1\/apps\/)/.test(to)) location.replace(to);
  else go(to, true);
}

/** The code of a program that waits, if the address has one. */
function fragment(): string | undefined {
  return location.hash.length > 1 ? decodeURIComponent(location.hash.slice(1)) : undefined;
}

function Password({ onCode }: { onCode: () => void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [methods, setMethods] = useState<LoginMethods>({ password: true, oidc: null });
  const [failed] = useState(() => new URLSearchParams(location.search).get("error"));
  useEffect(() => {
    title("Log in");
    get<LoginMethods>("/login/methods").then(setMethods, () => {});
  }, []);
  const who = user.value;
  useEffect(() => {
    if (who && path.value === "/login") onward(wanted());
  }, [who]);
  useEffect(() => {
    if (build.value?.setup_required) go("/setup", true);
  }, [build.value]);
  return (
    <Alone name="Log in" about={build.value ? `to ${new URL(build.value.access_url).host}` : undefined}>
      {failed && <p class="note after" data-tone="bad" role="alert">Logging in did not work: {failed.replaceAll("_", " ").toLowerCase()}. Try again, or ask an owner.</p>}
      {methods.oidc && (
        <p class="after"><a class="button primary" href={`/api/v1/login/oidc?next=${encodeURIComponent(wanted())}`} target="_self">Log in with {methods.oidc.name}</a></p>
      )}
      {methods.oidc && methods.password && <div class="divider">or</div>}
      {methods.password && (
        <Form action="Log in" busyAction="Logging in…" onSend={() => logIn(name, password)}>
          <Field label="Name" value={name} onValue={setName} autocomplete="username" autocapitalize="none" spellcheck={false} required maxLength={32} autofocus />
          <Field label="Password" type="password" value={password} onValue={setPassword} autocomplete="current-password" required />
        </Form>
      )}
      <p class="after muted"><small>Does <code>warren login</code> show you a code? <button class="link" onClick={onCode}>Confirm it here</button></small></p>
    </Alone>
  );
}

function Confirmation({ code: given, onLeave }: { code: string; onLeave: () => void }) {
  const [code, setCode] = useState(given);
  const [name, setName] = useState(user.value?.name ?? "");
  const [password, setPassword] = useState("");
  const [done, setDone] = useState(false);
  useEffect(() => title("Confirm a login"), []);
  const known = user.value?.name;
  useEffect(() => {
    if (known) setName((before) => before || known);
  }, [known]);
  if (done) {
    return (
      <Alone name="The program is logged in">
        <p class="note after" data-tone="good" role="status">It goes on by itself. You can close this page.</p>
      </Alone>
    );
  }
  return (
    <Alone name="Confirm a login" about="A program asks to act as you. Go on only if you started it, and if it shows this code.">
      <Form action="Let it act as me" busyAction="Confirming…" onSend={async () => {
        await post("/login/device/approve", { user_code: code, username: name, password });
        history.replaceState(null, "", "/login");
        setDone(true);
      }}>
        <Field label="Code" value={code} onValue={setCode} autocomplete="off" autocapitalize="characters" spellcheck={false} required maxLength={16} class="mono" autofocus={!given} />
        <Field label="Name" value={name} onValue={setName} autocomplete="username" autocapitalize="none" spellcheck={false} required maxLength={32} autofocus={given !== ""} />
        <Field label="Password" type="password" value={password} onValue={setPassword} autocomplete="current-password" required />
      </Form>
      <p class="after muted"><small><button class="link" onClick={() => { history.replaceState(null, "", "/login"); onLeave(); }}>Log in to the dashboard instead</button></small></p>
    </Alone>
  );
}
