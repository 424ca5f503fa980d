// Web applications of the workspace, and who may open them.
import { useState } from "preact/hooks";
import { part, put, remove } from "../../api/client";
import type { Sharing, WebApp, Workspace } from "../../api/types";
import { Confirm, Dialog } from "../../ui/dialog";
import { Choice, Field, Form } from "../../ui/form";
import { useLoaded } from "../../ui/load";
import { Chip, Empty, Loading, Problem, type Tone } from "../../ui/parts";
import { api } from "../../workspace";

const SHARING = [["owner", "Only its owner"], ["signed_in", "Everybody who is logged in"], ["public", "Everybody"]] as const;
const TONES: Record<Sharing, Tone> = { owner: "none", signed_in: "info", public: "warn" };
const SHORT: Record<Sharing, string> = { owner: "owner", signed_in: "signed in", public: "public" };

export function Apps({ workspace, editable, removable }: { workspace: Workspace; editable: boolean; removable: boolean }) {
  const path = `${api(workspace)}/apps`;
  const { data, error, absent, reload } = useLoaded<{ apps: WebApp[] }>(path);
  const [editing, setEditing] = useState<WebApp | "new">();
  const [removing, setRemoving] = useState<WebApp>();
  if (absent) return null;
  const onPaths = data?.apps.some((app) => new URL(app.url, location.href).origin === location.origin);
  return (
    <section class="card">
      <header><h2>Web apps</h2>{editable && <button class="small" onClick={() => setEditing("new")}>Add an app</button>}</header>
      {error !== undefined && <div class="body"><Problem error={error} retry={reload} /></div>}
      {!data && error === undefined && <Loading what="apps" />}
      {data?.apps.length === 0 && <Empty title="No app yet"><p>A web server in the workspace, such as a notebook or an editor, opens here in the browser, for you or for those you choose.</p></Empty>}
      {data && data.apps.length > 0 && (
        <div class="table fold-rows">
          <table>
            <thead><tr><th scope="col">App</th><th scope="col">Port</th><th scope="col">Who may open it</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
            <tbody>
              {data.apps.map((app) => (
                <tr key={app.slug}>
                  <td class="lead"><a class="name" href={app.url} target="_blank" rel="noopener noreferrer">{app.name || app.slug}<span class="visually-hidden"> (in a new tab)</span></a><span class="sub break">{app.url}</span></td>
                  <td data-label="Port" class="number">{app.port}{app.scheme === "https" && " (HTTPS)"}</td>
                  <td data-label="Who may open it"><Chip tone={TONES[app.sharing]}>{SHORT[app.sharing] ?? app.sharing}</Chip></td>
                  <td class="right">
                    {editable && <button class="small quiet" aria-label={`Change ${app.name || app.slug}`} onClick={() => setEditing(app)}>Change</button>}
                    {removable && <button class="small quiet" aria-label={`Remove ${app.name || app.slug}`} onClick={() => setRemoving(app)}>Remove</button>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {onPaths && <p class="body muted">Apps have no addresses of their own on this server: once the workspace is shared, and for everybody but its owner, they are <a href="/docs/reach#web-apps">shut off from their own scripts</a>.</p>}
      {editing && <Edit app={editing === "new" ? undefined : editing} path={path} onClose={() => setEditing(undefined)} onDone={reload} />}
      {removing && (
        <Confirm title={`Remove ${removing.name || removing.slug}?`} action="Remove" onClose={() => setRemoving(undefined)} onConfirm={async () => { await remove(`${path}/${part(removing.slug)}`); reload(); }}>
          <p>Its address leads nowhere afterwards. What runs in the workspace goes on.</p>
        </Confirm>
      )}
    </section>
  );
}

function Edit({ app, path, onClose, onDone }: { app: WebApp | undefined; path: string; onClose: () => void; onDone: () => void }) {
  const [slug, setSlug] = useState(app?.slug ?? "");
  const [name, setName] = useState(app?.name ?? "");
  const [port, setPort] = useState(String(app?.port ?? ""));
  const [scheme, setScheme] = useState(app?.scheme ?? "http");
  const [sharing, setSharing] = useState<Sharing>(app?.sharing ?? "owner");
  return (
    <Dialog title={app ? `Change ${app.name || app.slug}` : "Add an app"} onClose={onClose}>
      <Form action={app ? "Save" : "Add"} onSend={async () => {
        await put(`${path}/${part(slug)}`, { slug, name: name || slug, port: Number(port), scheme, sharing, ...(app?.cors === undefined ? {} : { cors: app.cors }) });
        onDone();
        onClose();
      }}>
        {!app && <Field label="Short name" value={slug} onValue={setSlug} required maxLength={24} autocapitalize="none" autocomplete="off" spellcheck={false} placeholder="notebook" autofocus hint="It becomes a part of the address." />}
        <Field label="Name" value={name} onValue={setName} maxLength={64} autocomplete="off" placeholder={slug || "Notebook"} />
        <Field label="Port" type="number" min={1} max={65535} value={port} onValue={setPort} required placeholder="8888" />
        <Choice label="It speaks" value={scheme} options={[["http", "HTTP"], ["https", "HTTPS"]]} onValue={setScheme} />
        <Choice label="Who may open it" value={sharing} options={SHARING} onValue={setSharing} />
      </Form>
    </Dialog>
  );
}
