// Who did what, the latest first.
import { useEffect, useState } from "preact/hooks";
import { get } from "../api/client";
import type { AuditEntry } from "../api/types";
import { full } from "../format";
import { title } from "../router";
import { Ago, Empty, Head, Loading, Problem } from "../ui/parts";

const PAGE = 50;

export default function Audit() {
  const [entries, setEntries] = useState<AuditEntry[]>();
  const [more, setMore] = useState(false);
  const [error, setError] = useState<unknown>();
  const [search, setSearch] = useState("");
  const load = async (before?: AuditEntry["id"]): Promise<void> => {
    try {
      const next = (await get<{ entries: AuditEntry[] }>(`/audit?limit=${PAGE}${before === undefined ? "" : `&before=${before}`}`)).entries;
      setEntries((known) => (before === undefined ? next : [...(known ?? []), ...next]));
      setMore(next.length === PAGE);
      setError(undefined);
    } catch (problem) {
      setError(problem);
    }
  };
  useEffect(() => {
    title("Audit log");
    void load();
  }, []);
  const wanted = search.trim().toLowerCase();
  const shown = entries?.filter((entry) => `${entry.actor} ${entry.action} ${entry.target} ${entry.address} ${entry.request_id}`.toLowerCase().includes(wanted));
  return (
    <>
      <Head name="Audit log" about="Who did what on this server, from where, the latest first." />
      {error !== undefined && <Problem error={error} retry={() => void load()} />}
      {!entries && error === undefined && <Loading what="the audit log" />}
      {entries && shown && (
        <>
          <div class="bar">
            <input class="search" type="search" placeholder="Search what is shown" aria-label="Search the log (key /)" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
          </div>
          <div class="card">{shown.length === 0 ? <Empty title="Nothing matches" /> : <Table entries={shown} />}</div>
          {more && <p class="after"><button onClick={() => void load(entries.at(-1)?.id)}>Show older entries</button></p>}
        </>
      )}
    </>
  );
}

function Table({ entries }: { entries: AuditEntry[] }) {
  return (
    <div class="table fold-rows">
      <table>
        <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">On what</th><th scope="col">From</th><th scope="col">Request</th></tr></thead>
        <tbody>
          {entries.map((entry) => (
            <tr key={entry.id}>
              <td data-label="When" class="nowrap"><Ago time={entry.at} /><span class="visually-hidden">, {full(entry.at)}</span></td>
              <td data-label="Who">{entry.actor || <span class="muted">nobody</span>}</td>
              <td data-label="What"><div>{entry.action}{entry.detail && <span class="sub break">{entry.detail}</span>}</div></td>
              <td data-label="On what" class="break">{entry.target || "–"}</td>
              <td data-label="From" class="break">{entry.address || "–"}</td>
              <td data-label="Request" class="break">{entry.request_id ? <code>{entry.request_id}</code> : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
