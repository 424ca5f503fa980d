// What listens in the workspace.
import type { Port, Workspace } from "../../api/types";
import { sentence } from "../../format";
import { Command } from "../../ui/copy";
import { useLoaded } from "../../ui/load";
import { Empty, Loading, Problem } from "../../ui/parts";
import { api, called } from "../../workspace";

/** How often the agent is asked while somebody looks, in milliseconds. */
const EVERY_MS = 10_000;

export function Ports({ workspace }: { workspace: Workspace }) {
  const { data, error, absent, reload } = useLoaded<{ ports: Port[]; problem?: string | null }>(`${api(workspace)}/ports`, EVERY_MS);
  if (absent) return null;
  return (
    <section class="card">
      <header><h2>Listening ports</h2></header>
      {error !== undefined && !data && <div class="body"><Problem error={error} retry={reload} /></div>}
      {!data && error === undefined && <Loading what="ports" />}
      {data?.problem && <div class="body"><p class="note" data-tone="warn">{sentence(data.problem)}</p></div>}
      {data?.ports.length === 0 && !data.problem && <Empty title="Nothing listens"><p>Start a server in the workspace, and its port appears here.</p></Empty>}
      {data && data.ports.length > 0 && (
        <div class="body commands">
          {data.ports.map((port) => {
            const what = `${port.port}${port.process ? `, ${port.process}` : ""}`;
            const kind = port.protocol === "udp" ? "udp" : "tcp";
            return (
              <div key={`${kind}${port.port}`}>
                <div class="label">
                  <strong class="number">{port.port}</strong> {port.process} {kind === "udp" && "UDP"}
                  {port.url && <> · <a href={port.url} target="_blank" rel="noopener noreferrer">open<span class="visually-hidden"> port {what} in a new tab</span></a></>}
                </div>
                <Command text={`warren port-forward ${called(workspace)} --${kind} ${port.port}:${port.port}`} label={`forward port ${what}`} />
              </div>
            );
          })}
        </div>
      )}
    </section>
  );
}
