// One workspace: how it is reached and why so, what is open in it, and the commands that lead there.
import { useEffect, useState } from "preact/hooks";
import { part, post, remove } from "../api/client";
import type { RelayMap, Workspace } from "../api/types";
import { version } from "../format";
import { refresh, workspaces } from "../live";
import { go, title } from "../router";
import { administers, build, user } from "../session";
import "../styles/network.css";
import { Command } from "../ui/copy";
import { Confirm, Dialog } from "../ui/dialog";
import { useLoaded } from "../ui/load";
import { Ago, Empty, Head, Loading, Problem, State } from "../ui/parts";
import { address, api, called } from "../workspace";
import { Apps } from "./workspace/apps";
import { Ports } from "./workspace/ports";
import { Sessions } from "./workspace/sessions";
import { Shares } from "./workspace/shares";
import { Tunnels } from "./workspace/tunnels";

export default function Page({ owner = "", name = "" }: { owner?: string; name?: string }) {
  useEffect(() => title(name), [name]);
  const all = workspaces.value;
  if (!all) return <Loading what="the workspace" />;
  const workspace = all.find((one) => one.owner === owner && one.name === name);
  if (!workspace) {
    return (
      <div class="card">
        <Empty title={`There is no workspace ${owner}/${name}`}>
          <p>It may have been deleted, or never shared with you.</p>
          <a class="button" href="/workspaces">To the workspaces</a>
        </Empty>
      </div>
    );
  }
  return <One workspace={workspace} key={workspace.id} />;
}

function One({ workspace }: { workspace: Workspace }) {
  const [asking, setAsking] = useState<"token" | "delete" | "leave">();
  const connected = workspace.status === "connected";
  const own = workspace.access === "owner";
  // What only its owner may do, and the server's; what whoever administers may, too.
  const [owns, manages] = [own || user.value?.role === "owner", own || administers()];
  // Who administers the server looks after a workspace, and uses it only if it is shared.
  const usable = workspace.access !== "admin";
  const seen = workspace.agents.some((agent) => agent.last_seen);
  const close = (): void => setAsking(undefined);
  return (
    <>
      <Head name={workspace.name} crumbs={<><a href="/workspaces">Workspaces</a> / {workspace.owner}</>}
        about={<State tone={connected ? "good" : "none"}>{connected ? "connected" : "offline"}</State>}>
        {connected && usable && <a class="button primary" href={`${address(workspace)}/terminal`}>Open a terminal</a>}
        {owns && <button onClick={() => setAsking("token")}>New agent token</button>}
        {workspace.access === "shared" && <button onClick={() => setAsking("leave")}>Leave</button>}
        {manages && <button class="danger" onClick={() => setAsking("delete")}>Delete</button>}
      </Head>
      <div class="stack">
        {!connected && (
          <div class="note" data-tone="warn">
            {seen ? <>The agent was last here <Ago time={workspace.agents[0]?.last_seen} />. Start it again in the workspace, and look at what it prints.</>
              : <>The agent has never connected. If you no longer have the command that starts it, make a new agent token.</>}
          </div>
        )}
        <Tunnels workspace={workspace} />
        <div class="columns">
          <Commands workspace={workspace} />
          <Agent workspace={workspace} />
        </div>
        {connected && usable && <div class="columns"><Ports workspace={workspace} /><Sessions workspace={workspace} /></div>}
        <Apps workspace={workspace} editable={owns} removable={manages} />
        {manages && <Shares workspace={workspace} editable={owns} />}
      </div>
      {asking === "token" && <NewToken workspace={workspace} onClose={close} />}
      {asking === "leave" && (
        <Confirm title={`Leave ${workspace.name}?`} action="Leave" onClose={close} onConfirm={async () => {
          await remove(`${api(workspace)}/shares/${part(user.value?.name ?? "")}`);
          await refresh();
          go("/workspaces");
        }}>
          <p>It is shared with you no more, and what you have open there ends. {workspace.owner} can share it with you again.</p>
        </Confirm>
      )}
      {asking === "delete" && (
        <Confirm title={`Delete ${workspace.name}?`} action="Delete" onClose={close} onConfirm={async () => {
          await remove(api(workspace));
          await refresh();
          go("/workspaces");
        }}>
          <p>Its agent is disconnected at once and its token revoked. Nothing on the machine itself is touched.</p>
        </Confirm>
      )}
    </>
  );
}

function Agent({ workspace }: { workspace: Workspace }) {
  const { data: map } = useLoaded<RelayMap>("/derp-map");
  const relay = (id: number): string => {
    const region = map?.Regions[id];
    return region ? `${region.RegionName} (${region.RegionCode})` : `region ${id}`;
  };
  return (
    <section class="card">
      <header><h2>{workspace.agents.length > 1 ? "Agents" : "Agent"}</h2></header>
      <div class="body stack">
        {workspace.agents.map((agent) => (
          <dl class="facts" key={agent.id}>
            <dt>Name</dt><dd>{agent.name}</dd>
            <dt>Status</dt><dd><State tone={agent.status === "connected" ? "good" : "none"}>{agent.status}</State></dd>
            <dt>Last seen</dt><dd>{agent.status === "connected" ? "now" : <Ago time={agent.last_seen} />}</dd>
            <dt>Version</dt><dd>{version(agent.version)}</dd>
            <dt>Home relay</dt><dd>{agent.home_relay == null ? "–" : relay(agent.home_relay)}</dd>
            {agent.node_key && <><dt>Node key</dt><dd class="mono">{agent.node_key}</dd></>}
          </dl>
        ))}
      </div>
    </section>
  );
}

function Commands({ workspace }: { workspace: Workspace }) {
  const name = called(workspace);
  const commands: [string, string][] = [
    ["Log in, once", `warren login ${build.value?.access_url ?? location.origin}`],
    ["A shell", `warren ssh ${name}`],
    ["How it is reached, step by step", `warren ping ${name}`],
    ["A port of it on your machine", `warren port-forward ${name} --tcp 8080:80`],
    ["Then ssh, scp, rsync, git and IDEs find it", "warren config-ssh"],
  ];
  return (
    <section class="card">
      <header><h2>From your machine</h2></header>
      <div class="body commands">
        {commands.map(([what, text]) => <div key={text}><div class="label">{what}</div><Command text={text} label={what} /></div>)}
      </div>
    </section>
  );
}

function NewToken({ workspace, onClose }: { workspace: Workspace; onClose: () => void }) {
  const [made, setMade] = useState<{ agent_token: string; command: string }>();
  const [error, setError] = useState<unknown>();
  const agent = workspace.agents[0];
  const make = (): void => {
    if (agent) post<{ agent_token: string; command: string }>(`${api(workspace)}/agents/${part(agent.name)}/token`).then(setMade, setError);
  };
  return (
    <Dialog title="New agent token" onClose={onClose}>
      {made ? (
        <>
          <p>Run this in the workspace. The token is shown only here; the old one works no more.</p>
          <Command text={made.command} label="command that starts the agent" />
        </>
      ) : <p>The token that the agent has now is revoked, and the agent disconnected until it is started with the new one.</p>}
      {error !== undefined && <Problem error={error} />}
      <footer>
        <button onClick={onClose}>{made ? "Close" : "Cancel"}</button>
        {!made && <button class="primary" onClick={make}>Make it</button>}
      </footer>
    </Dialog>
  );
}
