// Terminals that go on in the workspace, with or without somebody who looks at them.
import { useState } from "preact/hooks";
import { part, remove } from "../../api/client";
import type { TerminalSession, Workspace } from "../../api/types";
import { Confirm } from "../../ui/dialog";
import { useLoaded } from "../../ui/load";
import { Ago, Empty, Loading, Problem } from "../../ui/parts";
import { address, api } from "../../workspace";

/** How often they are asked for while somebody looks, in milliseconds. */
const EVERY_MS = 10_000;

export function Sessions({ workspace }: { workspace: Workspace }) {
  const path = `${api(workspace)}/sessions`;
  const { data, error, absent, reload } = useLoaded<{ sessions: TerminalSession[] }>(path, EVERY_MS);
  const [ending, setEnding] = useState<TerminalSession>();
  if (absent) return null;
  return (
    <section class="card">
      <header><h2>Terminal sessions</h2></header>
      {error !== undefined && !data && <div class="body"><Problem error={error} retry={reload} /></div>}
      {!data && error === undefined && <Loading what="sessions" />}
      {data?.sessions.length === 0 && (
        <Empty title="No terminal is open"><p>A terminal goes on when you close its page: come back, and it is as you left it.</p></Empty>
      )}
      {data && data.sessions.length > 0 && (
        <div class="table fold-rows">
          <table>
            <thead><tr><th scope="col">Program</th><th scope="col">Viewers</th><th scope="col">Last active</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
            <tbody>
              {data.sessions.map((session) => (
                <tr key={session.id}>
                  <td class="lead"><a class="name" href={`${address(workspace)}/terminal?session=${part(session.id)}`}>{session.command}</a><span class="sub number">{session.cols} × {session.rows}</span></td>
                  <td data-label="Viewers" class="number">{session.viewers}</td>
                  <td data-label="Last active" class="nowrap"><Ago time={session.last_active_at} /></td>
                  <td class="right"><button class="small quiet" aria-label={`End ${session.command}`} onClick={() => setEnding(session)}>End</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {ending && (
        <Confirm title="End this terminal?" action="End it" onClose={() => setEnding(undefined)} onConfirm={async () => { await remove(`${path}/${part(ending.id)}`); reload(); }}>
          <p><code>{ending.command}</code> and all that runs in it is ended.</p>
        </Confirm>
      )}
    </section>
  );
}
