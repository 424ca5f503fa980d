// Logging in, and confirming that a program may act as oneself (`warren login`).
import { useEffect, useState } from "preact/hooks";
import { get, post } from "../api/client";
import type { LoginMethods } from "../api/types";
import { decoded, go, path, title } from "../router";
import { build, leave, logIn, user, wanted } from "../session";
import { Field, Form } from "../ui/form";
import { Loading } from "../ui/parts";
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
  return location.hash.length > 1 ? decoded(location.hash.slice(1)) : undefined;
}

/** How one may log in here, as far as it is known. */
function useMethods(): LoginMethods {
  const [methods, setMethods] = useState<LoginMethods>({ password: true, oidc: null });
  useEffect(() => {
    get<LoginMethods>("/login/methods").then(setMethods, () => {});
  }, []);
  return methods;
}

/** Leads to the provider and from there to a page of this dashboard. */
function Elsewhere({ methods, next }: { methods: LoginMethods; next: string }) {
  if (!methods.oidc) return null;
  const to = `/api/v1/login/oidc?next=${encodeURIComponent(next)}`;
  return (
    <>
      <p class="after"><a class="button primary" href={to} target="_self" onClick={leave}>Log in with {methods.oidc.name}</a></p>
      {methods.password && <div class="divider">or</div>}
    </>
  );
}

function Password({ onCode }: { onCode: () => void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const methods = useMethods();
  const [failed] = useState(() => new URLSearchParams(location.search).get("error"));
  useEffect(() => title("Log in"), []);
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
      <Elsewhere methods={methods} next={wanted()} />
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
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [done, setDone] = useState(false);
  const methods = useMethods();
  useEffect(() => title("Confirm a login"), []);
  const who = user.value;
  if (who === undefined) return <Alone name="Confirm a login"><Loading what="who you are" /></Alone>;
  if (done) {
    return (
      <Alone name="The program is logged in">
        <p class="note after" data-tone="good" role="status">It goes on by itself. You can close this page.</p>
      </Alone>
    );
  }
  const confirm = async (): Promise<void> => {
    if (who) await post("/login/device/confirm", { user_code: code });
    else await post("/login/device/approve", { user_code: code, username: name, password });
    history.replaceState(null, "", "/login");
    setDone(true);
  };
  const leaveTo = (): void => {
    history.replaceState(null, "", "/login");
    onLeave();
  };
  return (
    <Alone name="Confirm a login" about="A program asks to act as you. Go on only if you started it, and if it shows this code.">
      {!who && <Elsewhere methods={methods} next={`/login#${encodeURIComponent(code)}`} />}
      {(who || methods.password) && (
        <Form action={who ? `Let it act as ${who.name}` : "Let it act as me"} busyAction="Confirming…" onSend={confirm}>
          <Field label="Code" value={code} onValue={setCode} autocomplete="off" autocapitalize="characters" spellcheck={false} required maxLength={16} class="mono" autofocus={!given} />
          {!who && (
            <>
              <Field label="Name" value={name} onValue={setName} autocomplete="username" autocapitalize="none" spellcheck={false} required maxLength={32} autofocus={given !== ""} />
              <Field label="Password" type="password" value={password} onValue={setPassword} autocomplete="current-password" required />
            </>
          )}
        </Form>
      )}
      <p class="after muted"><small><button class="link" onClick={leaveTo}>{who ? "Go to the dashboard instead" : "Log in to the dashboard instead"}</button></small></p>
    </Alone>
  );
}
