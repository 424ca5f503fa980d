// The servers that form this deployment.
import { useEffect } from "preact/hooks";
import type { Replica } from "../api/types";
import { title } from "../router";
import { useLoaded } from "../ui/load";
import { Ago, Chip, Head, Loading, Problem } from "../ui/parts";

/** How often they are asked for while somebody looks, in milliseconds. */
const EVERY_MS = 10_000;

export default function Replicas() {
  useEffect(() => title("Replicas"), []);
  const { data, error, reload } = useLoaded<{ replicas: Replica[] }>("/replicas", EVERY_MS);
  return (
    <>
      <Head name="Replicas" about="The servers that form this deployment together." />
      {error !== undefined && <Problem error={error} retry={reload} />}
      {!data && error === undefined && <Loading what="replicas" />}
      {data && (
        <div class="card">
          <div class="table fold-rows">
            <table>
              <thead><tr><th scope="col">Server</th><th scope="col">Version</th><th scope="col">Access URL</th><th scope="col">Started</th></tr></thead>
              <tbody>
                {data.replicas.map((replica) => (
                  <tr key={replica.id}>
                    <td class="lead"><code>{replica.id}</code> {replica.this && <Chip tone="info">this one</Chip>}</td>
                    <td data-label="Version">{replica.version}</td>
                    <td data-label="Access URL" class="break">{replica.access_url}</td>
                    <td data-label="Started" class="nowrap"><Ago time={replica.started_at} /></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </div>
      )}
    </>
  );
}
