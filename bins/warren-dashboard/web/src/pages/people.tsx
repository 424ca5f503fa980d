// One's own tokens and password, and for administrators the people.
import { useEffect, useState } from "preact/hooks";
import { part, patch, post, remove } from "../api/client";
import type { Role, TokenInfo, User } from "../api/types";
import { title } from "../router";
import { administers, user } from "../session";
import { Command } from "../ui/copy";
import { Confirm, Dialog } from "../ui/dialog";
import { Choice, Field, Form } from "../ui/form";
import { useLoaded } from "../ui/load";
import { Ago, Chip, Empty, Head, Loading, Problem } from "../ui/parts";
import { done } from "../ui/toast";

const ROLES = [["member", "Member: own and shared workspaces"], ["admin", "Admin: people, health and settings too"], ["owner", "Owner: everything"]] as const;

/** Those that one may give somebody: only owners make owners, and look after them. */
function roles(): (readonly [Role, string])[] {
  return ROLES.filter(([role]) => role !== "owner" || user.value?.role === "owner");
}

export default function People() {
  useEffect(() => title("People and tokens"), []);
  return (
    <>
      <Head name="People and tokens" />
      <div class="stack">
        {administers() && <Users />}
        <Tokens />
        <Password />
      </div>
    </>
  );
}

function Users() {
  const { data, error, reload } = useLoaded<{ users: User[] }>("/users");
  const [adding, setAdding] = useState(false);
  const [changing, setChanging] = useState<User>();
  const [removing, setRemoving] = useState<User>();
  return (
    <section class="card">
      <header><h2>People</h2><button class="small" onClick={() => setAdding(true)}>Add a person</button></header>
      {error !== undefined && <div class="body"><Problem error={error} retry={reload} /></div>}
      {!data && error === undefined && <Loading what="people" />}
      {data && (
        <div class="table fold-rows">
          <table>
            <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Since</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
            <tbody>
              {data.users.map((one) => (
                <tr key={one.id}>
                  <td class="lead"><strong>{one.name}</strong> {one.id === user.value?.id && <Chip tone="info">you</Chip>} {one.disabled && <Chip tone="warn">may not log in</Chip>}</td>
                  <td data-label="Role">{one.role}</td>
                  <td data-label="Since" class="nowrap"><Ago time={one.created_at} /></td>
                  <td class="right">
                    {roles().some(([role]) => role === one.role) && (
                      <>
                        <button class="small quiet" aria-label={`Change ${one.name}`} onClick={() => setChanging(one)}>Change</button>
                        <button class="small quiet" aria-label={`Remove ${one.name}`} onClick={() => setRemoving(one)}>Remove</button>
                      </>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {adding && <AddUser onClose={() => setAdding(false)} onDone={reload} />}
      {changing && <ChangeUser person={changing} onClose={() => setChanging(undefined)} onDone={reload} />}
      {removing && (
        <Confirm title={`Remove ${removing.name}?`} action="Remove" onClose={() => setRemoving(undefined)}
          onConfirm={async () => { await remove(`/users/${part(removing.id)}`); reload(); done(`${removing.name} is removed`); }}>
          <p>Their workspaces, tokens and sessions go with them. This cannot be undone.</p>
        </Confirm>
      )}
    </section>
  );
}

function AddUser({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [role, setRole] = useState<Role>("member");
  return (
    <Dialog title="Add a person" onClose={onClose}>
      <Form action="Add" onSend={async () => {
        await post("/users", { username: name, password, role });
        done(`${name} can log in now`);
        onDone();
        onClose();
      }}>
        <Field label="Name" value={name} onValue={setName} required maxLength={32} autocapitalize="none" autocomplete="off" spellcheck={false} autofocus />
        <Field label="First password" type="password" value={password} onValue={setPassword} required minLength={8} autocomplete="new-password" hint="Tell it to them by a safe way; they can change it on this page." />
        <Choice label="Role" value={role} options={roles()} onValue={setRole} />
      </Form>
    </Dialog>
  );
}

function ChangeUser({ person, onClose, onDone }: { person: User; onClose: () => void; onDone: () => void }) {
  const [role, setRole] = useState(person.role);
  const [password, setPassword] = useState("");
  const [access, setAccess] = useState<"yes" | "no">(person.disabled ? "no" : "yes");
  return (
    <Dialog title={`Change ${person.name}`} onClose={onClose}>
      <Form action="Save" onSend={async () => {
        const change: Record<string, unknown> = {};
        if (role !== person.role) change.role = role;
        if (password) change.password = password;
        if ((access === "no") !== (person.disabled ?? false)) change.disabled = access === "no";
        await patch(`/users/${part(person.id)}`, change);
        done(`${person.name} is changed`);
        onDone();
        onClose();
      }}>
        <Choice label="Role" value={role} options={roles()} onValue={setRole} />
        <Choice label="May log in" value={access} options={[["yes", "Yes"], ["no", "No: sessions and tunnels end at once"]]} onValue={setAccess} />
        <Field label="New password" type="password" value={password} onValue={setPassword} minLength={8} autocomplete="new-password" hint="Leave it empty to keep the old one." />
      </Form>
    </Dialog>
  );
}

function Tokens() {
  const { data, error, reload } = useLoaded<{ tokens: TokenInfo[] }>("/tokens");
  const [making, setMaking] = useState(false);
  const [revoking, setRevoking] = useState<TokenInfo>();
  return (
    <section class="card">
      <header><h2>Your sessions and API tokens</h2><button class="small" onClick={() => setMaking(true)}>New API token</button></header>
      {error !== undefined && <div class="body"><Problem error={error} retry={reload} /></div>}
      {!data && error === undefined && <Loading what="tokens" />}
      {data?.tokens.length === 0 && <Empty title="There are none" />}
      {data && data.tokens.length > 0 && (
        <div class="table fold-rows">
          <table>
            <thead><tr><th scope="col">Name</th><th scope="col">May</th><th scope="col">Last used</th><th scope="col">Ends</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
            <tbody>
              {data.tokens.map((token) => (
                <tr key={token.id}>
                  <td class="lead"><strong>{token.name || (token.kind === "session" ? "Session" : "Token")}</strong> <Chip>{token.kind === "api" ? "API token" : "session"}</Chip> {token.current && <Chip tone="info">this one</Chip>}</td>
                  <td data-label="May">{token.scope === "read" ? "read" : "everything you may"}</td>
                  <td data-label="Last used" class="nowrap"><Ago time={token.last_used_at} /></td>
                  <td data-label="Ends" class="nowrap"><Ago time={token.expires_at} /></td>
                  <td class="right"><button class="small quiet" aria-label={`Revoke ${token.name || token.kind}`} onClick={() => setRevoking(token)}>Revoke</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {making && <NewToken onClose={() => setMaking(false)} onDone={reload} />}
      {revoking && (
        <Confirm title="Revoke it?" action="Revoke" onClose={() => setRevoking(undefined)}
          onConfirm={async () => { await remove(`/tokens/${part(revoking.id)}`); reload(); done("It is revoked"); }}>
          <p>Whoever uses {revoking.name ? <strong>{revoking.name}</strong> : "it"} is logged out at once{revoking.current ? ": that is this browser" : ""}.</p>
        </Confirm>
      )}
    </section>
  );
}

function NewToken({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [name, setName] = useState("");
  const [scope, setScope] = useState<"all" | "read">("all");
  const [days, setDays] = useState<string>("90");
  const [made, setMade] = useState<string>();
  if (made) {
    return (
      <Dialog title="The new token" onClose={onClose}>
        <p>It is shown only here: copy it now.</p>
        <Command text={made} label="the token" />
        <footer><button onClick={onClose}>Close</button></footer>
      </Dialog>
    );
  }
  return (
    <Dialog title="New API token" onClose={onClose}>
      <Form action="Make it" onSend={async () => {
        setMade((await post<{ token: string }>("/tokens", { name, scope, expires_in_days: Number(days) })).token);
        onDone();
      }}>
        <Field label="Name" value={name} onValue={setName} required maxLength={64} autocomplete="off" placeholder="backup script" autofocus hint="What uses it" />
        <Choice label="It may" value={scope} options={[["all", "Do everything that you may"], ["read", "Read only"]]} onValue={setScope} />
        <Choice label="It ends" value={days} options={[["7", "in a week"], ["30", "in 30 days"], ["90", "in 90 days"], ["365", "in a year"]]} onValue={setDays} />
      </Form>
    </Dialog>
  );
}

function Password() {
  const [before, setBefore] = useState("");
  const [after, setAfter] = useState("");
  return (
    <section class="card">
      <header><h2>Your password</h2></header>
      <div class="body narrow">
        <Form action="Change it" onSend={async () => {
          await post("/me/password", { old: before, new: after });
          setBefore("");
          setAfter("");
          done("Your password is changed; your other sessions have ended");
        }}>
          <input class="visually-hidden" type="text" autocomplete="username" value={user.value?.name ?? ""} readOnly tabIndex={-1} aria-hidden="true" />
          <Field label="Old password" type="password" value={before} onValue={setBefore} required autocomplete="current-password" />
          <Field label="New password" type="password" value={after} onValue={setAfter} required minLength={8} autocomplete="new-password" hint="Your other sessions end." />
        </Form>
      </div>
    </section>
  );
}
