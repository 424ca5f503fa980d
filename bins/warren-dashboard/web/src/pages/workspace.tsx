// One workspace: how it is, and the commands that lead to it.
import { useEffect } from "preact/hooks";
import { version } from "../format";
import { workspaces } from "../live";
import { title } from "../router";
import { build } from "../session";
import { Command } from "../ui/copy";
import { Ago, Empty, Head, Loading, State } from "../ui/parts";
import { called } from "../workspace";

export default function Page({ owner = "", name = "" }: { owner?: string; name?: string }) {
  useEffect(() => title(name), [name]);
  const all = workspaces.value;
  if (!all) return <Loading what="the workspace" />;
  const workspace = all.find((one) => one.owner === owner && one.name === name);
  if (!workspace) {
    return (
      <div class="card">
        <Empty title={`There is no workspace ${owner}/${name}`}><a class="button" href="/workspaces">To the workspaces</a></Empty>
      </div>
    );
  }
  const connected = workspace.status === "connected";
  const short = called(workspace);
  return (
    <>
      <Head name={workspace.name} crumbs={<><a href="/workspaces">Workspaces</a> / {workspace.owner}</>} />
      <div class="columns">
        <section class="card">
          <header><h2>Agent</h2></header>
          <div class="body">
            <dl class="facts">
              <dt>Status</dt><dd><State tone={connected ? "good" : "none"}>{connected ? "connected" : "offline"}</State></dd>
              <dt>Last seen</dt><dd>{connected ? "now" : <Ago time={workspace.agents[0]?.last_seen} />}</dd>
              <dt>Version</dt><dd>{version(workspace.agents[0]?.version)}</dd>
            </dl>
          </div>
        </section>
        <section class="card">
          <header><h2>From your machine</h2></header>
          <div class="body commands">
            <Command text={`warren login ${build.value?.access_url ?? location.origin}`} label="log in" />
            <Command text={`warren ssh ${short}`} label="open a shell" />
            <Command text={`warren ping ${short}`} label="see how it is reached" />
          </div>
        </section>
      </div>
    </>
  );
}
