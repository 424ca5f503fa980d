// With whom the workspace is shared.
import { useState } from "preact/hooks";
import { part, put, remove } from "../../api/client";
import type { Share, Workspace } from "../../api/types";
import { Field, Form } from "../../ui/form";
import { useLoaded } from "../../ui/load";
import { Ago, Problem } from "../../ui/parts";
import { failed } from "../../ui/toast";
import { api } from "../../workspace";

export function Shares({ workspace, editable }: { workspace: Workspace; editable: boolean }) {
  const path = `${api(workspace)}/shares`;
  const { data, error, reload } = useLoaded<{ shares: Share[] }>(path);
  const [name, setName] = useState("");
  return (
    <section class="card">
      <header><h2>Shared with</h2></header>
      <div class="body stack">
        {error !== undefined && <Problem error={error} retry={reload} />}
        {data?.shares.length === 0 && <p class="muted">Nobody. Who it is shared with can use it, and neither delete it nor share it on.</p>}
        {data && data.shares.length > 0 && (
          <ul class="plain">
            {data.shares.map((share) => (
              <li key={share.user}>
                <span><strong>{share.user}</strong> <small class="muted">since <Ago time={share.created_at} /></small></span>
                <button class="small quiet" aria-label={`Stop sharing with ${share.user}`} onClick={() => void remove(`${path}/${part(share.user)}`).then(reload, failed)}>Stop</button>
              </li>
            ))}
          </ul>
        )}
        {editable && (
          <div class="narrow">
            <Form action="Share" onSend={async () => {
              await put(`${path}/${part(name)}`);
              setName("");
              reload();
            }}>
              <Field label="A person's name" value={name} onValue={setName} required maxLength={32} autocapitalize="none" autocomplete="off" spellcheck={false} />
            </Form>
          </div>
        )}
      </div>
    </section>
  );
}
