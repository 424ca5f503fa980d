// All workspaces, live; without any, the way to the first.
import { useEffect, useState } from "preact/hooks";
import { post } from "../api/client";
import type { CreatedWorkspace, Workspace } from "../api/types";
import { bytes, latency, version } from "../format";
import { refresh, workspaces } from "../live";
import { title } from "../router";
import { user } from "../session";
import { Command } from "../ui/copy";
import { Dialog } from "../ui/dialog";
import { Field, Form } from "../ui/form";
import { Ago, Empty, Head, Loading, State, Way } from "../ui/parts";
import { address } from "../workspace";

export function Workspaces() {
  const [search, setSearch] = useState("");
  const [creating, setCreating] = useState(false);
  const [first, setFirst] = useState(false);
  useEffect(() => title("Workspaces"), []);
  const all = workspaces.value;
  const close = (): void => setCreating(false);
  if (!all) return <Loading what="workspaces" />;
  // Once asked for, the way to the first stays until it is left, though the list has the workspace by then, mostly even
  // before the answer with the token is here.
  if (all.length === 0 || first) {
    return (
      <>
        <Head name="Workspaces">{all.length > 0 && <button onClick={() => setFirst(false)}>To the list</button>}</Head>
        <div class="card"><First onBegun={() => setFirst(true)} /></div>
      </>
    );
  }
  const wanted = search.trim().toLowerCase();
  const shown = all.filter((workspace) => `${workspace.owner}/${workspace.name} ${workspace.status}`.includes(wanted));
  const connected = all.filter((workspace) => workspace.status === "connected").length;
  return (
    <>
      <Head name="Workspaces" about={`${connected} of ${all.length} connected`}>
        <button class="primary" onClick={() => setCreating(true)}>New workspace</button>
      </Head>
      <div class="bar">
        <input class="search" type="search" placeholder="Search" aria-label="Search workspaces (key /)" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
      </div>
      <div class="card">
        {shown.length > 0 ? <Table shown={shown} /> : <Empty title="No workspace matches"><p>Nothing here is called “{search}”.</p></Empty>}
      </div>
      {creating && <Create onClose={close} />}
    </>
  );
}

function Table({ shown }: { shown: Workspace[] }) {
  return (
    <div class="table fold-rows">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th><th scope="col">Status</th><th scope="col">Path</th><th scope="col" class="right">Latency</th>
            <th scope="col" class="right">Received / sent</th><th scope="col">Version</th><th scope="col">Last seen</th>
          </tr>
        </thead>
        <tbody>{shown.map((workspace) => <Row workspace={workspace} key={workspace.id} />)}</tbody>
      </table>
    </div>
  );
}

function Row({ workspace }: { workspace: Workspace }) {
  const agent = workspace.agents[0];
  const connected = workspace.status === "connected";
  const traffic = workspace.rx_bytes != null || workspace.tx_bytes != null;
  return (
    <tr>
      <td class="lead">
        <a class="name" href={address(workspace)}>{workspace.name}</a>
        {workspace.owner !== user.value?.name && <span class="sub">{workspace.owner}</span>}
      </td>
      <td data-label="Status"><State tone={connected ? "good" : "none"}>{connected ? "connected" : "offline"}</State></td>
      <td data-label="Path"><Way path={workspace.path} /></td>
      <td data-label="Latency" class="right number">{latency(workspace.latency_ms)}</td>
      <td data-label="Received / sent" class="right number nowrap">{traffic ? `${bytes(workspace.rx_bytes)} / ${bytes(workspace.tx_bytes)}` : "–"}</td>
      <td data-label="Version">{version(agent?.version)}</td>
      <td data-label="Last seen" class="nowrap">{connected ? "now" : <Ago time={agent?.last_seen} />}</td>
    </tr>
  );
}

/** What a new server shows: the three steps to the first workspace, of which the last happens by itself. */
function First({ onBegun }: { onBegun: () => void }) {
  const [made, setMade] = useState<CreatedWorkspace>();
  return (
    <div class="first">
      <h2>Your first workspace</h2>
      <p class="muted">A workspace is a machine, a container or a virtual machine that you want to reach from anywhere.</p>
      <Steps made={made} onBegun={onBegun} onMade={setMade} />
    </div>
  );
}

function Create({ onClose }: { onClose: () => void }) {
  const [made, setMade] = useState<CreatedWorkspace>();
  return (
    <Dialog title="New workspace" onClose={onClose}>
      <Steps made={made} onMade={setMade} />
      {made && <footer><button onClick={onClose}>Close</button></footer>}
    </Dialog>
  );
}

function Steps({ made, onBegun, onMade }: {
  made: CreatedWorkspace | undefined; onBegun?: () => void; onMade: (made: CreatedWorkspace) => void;
}) {
  const [name, setName] = useState("");
  const now = workspaces.value?.find((workspace) => workspace.id === made?.workspace.id);
  const connected = now?.status === "connected";
  const create = async (): Promise<void> => {
    onBegun?.();
    onMade(await post<CreatedWorkspace>("/workspaces", { name }));
  };
  useEffect(() => {
    if (made) void refresh().catch(() => {});
  }, [made]);
  return (
    <ol class="steps">
      <li data-done={made !== undefined}>
        <div>
          <h3>{made ? `It is called ${made.workspace.name}` : "Give it a name"}</h3>
          {!made && (
            <Form action="Create" busyAction="Creating…" onSend={create}>
              <Field label="Name" value={name} onValue={setName} required maxLength={32} autocapitalize="none" autocomplete="off" spellcheck={false} placeholder="dev" autofocus
                hint="Lower-case letters, digits and dashes" />
            </Form>
          )}
        </div>
      </li>
      <li data-done={connected}>
        <div>
          <h3>Run this in the workspace</h3>
          {made ? (
            <>
              <Command text={made.command} label="command that starts the agent" />
              <small class="muted">It holds the agent's token, which is shown only here. Any user may run it; root is not needed.</small>
            </>
          ) : <small class="muted">A command that starts the agent appears here.</small>}
        </div>
      </li>
      <li data-done={connected}>
        <div>
          <h3>{connected ? "Connected" : "It connects"}</h3>
          <div role="status">
            {connected && now ? (
              <p class="actions">
                <a class="button primary" href={address(now)}>See how to reach it</a>
              </p>
            ) : made ? <span class="waiting"><span class="spin" />Waiting for the agent</span> : <small class="muted">This page tells you as soon as it has.</small>}
          </div>
        </div>
      </li>
    </ol>
  );
}
