// The first owner, made with the one-time link that the server prints.
import { useEffect, useState } from "preact/hooks";
import { go, title } from "../router";
import { build, setUp } from "../session";
import { Field, Form } from "../ui/form";
import { Alone } from "./alone";


export function Setup() {
  const [token, setToken] = useState(() => location.hash.slice(1));
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  useEffect(() => {
    title("Set up");
    // It leaves the address, and so the history, at once; who pastes the link into this page brings another.
    const take = (): void => {
      if (location.hash.length <= 1) return;
      setToken(location.hash.slice(1));
      history.replaceState(null, "", "/setup");
    };
    take();
    window.addEventListener("hashchange", take);
    return () => window.removeEventListener("hashchange", take);
  }, []);
  if (build.value && !build.value.setup_required) {
    return (
      <Alone name="This server is set up already" about="Its owner has been made. Log in, or ask an owner for an account.">
        <p class="actions after"><a class="button primary" href="/login">Log in</a></p>
      </Alone>
    );
  }
  if (!token) {
    return (
      <Alone name="Set up Warren" about="This server has no owner yet.">
        <p class="note after">
          Open the one-time link that the server printed when it started. A restart prints a new one.
        </p>
      </Alone>
    );
  }
  return (
    <Alone name="Set up Warren" about="You become the owner of this server. The link works once.">
      <Form action="Make the owner" busyAction="Making the owner…" onSend={async () => {
        await setUp(token, name, password);
        go("/workspaces", true);
      }}>
        <Field label="Name" value={name} onValue={setName} autocomplete="username" autocapitalize="none" spellcheck={false} required maxLength={32} autofocus
          hint="Lower-case letters, digits and dashes" />
        <Field label="Password" type="password" value={password} onValue={setPassword} autocomplete="new-password" required minLength={8}
          hint="At least 8 characters; a sentence is best" />
      </Form>
    </Alone>
  );
}
