// Every setting of the server, its value, and where that comes from.
import { useEffect, useState } from "preact/hooks";
import type { Setting } from "../api/types";
import { title } from "../router";
import { useLoaded } from "../ui/load";
import { Chip, Empty, Head, Loading, Problem } from "../ui/parts";

const ORIGINS = { flag: "flag", environment: "environment", file: "settings file", default: "default" };

export default function SettingsPage() {
  const [search, setSearch] = useState("");
  const [all, setAll] = useState(true);
  useEffect(() => title("Settings"), []);
  const { data, error, reload } = useLoaded<{ settings: Setting[] }>("/settings");
  const shown = data?.settings.filter((one) => (all || one.origin !== "default") && `${one.name} ${one.help ?? ""}`.toLowerCase().includes(search.trim().toLowerCase()));
  return (
    <>
      <Head name="Settings" about="As the server was started: a flag beats its environment variable, that the settings file, and that the default. Secrets are not shown." />
      {error !== undefined && <Problem error={error} retry={reload} />}
      {!data && error === undefined && <Loading what="settings" />}
      {shown && (
        <>
          <div class="bar">
            <input class="search" type="search" placeholder="Search" aria-label="Search settings (key /)" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
            <div class="tabs">
              <button class="small" aria-pressed={all} onClick={() => setAll(true)}>All</button>
              <button class="small" aria-pressed={!all} onClick={() => setAll(false)}>Changed</button>
            </div>
          </div>
          <div class="card">
            {shown.length === 0 ? <Empty title="No setting matches" /> : <Table settings={shown} />}
          </div>
        </>
      )}
    </>
  );
}

function Table({ settings }: { settings: Setting[] }) {
  return (
    <div class="table fold-rows">
      <table>
        <thead><tr><th scope="col">Setting</th><th scope="col">Value</th><th scope="col">From</th><th scope="col">Variable</th></tr></thead>
        <tbody>
          {settings.map((one) => (
            <tr key={one.name}>
              <td class="lead"><code>--{one.name.replace(/^--/, "")}</code>{one.help && <span class="sub">{one.help}</span>}</td>
              <td data-label="Value" class="break">{one.value ? <code>{one.value}</code> : <span class="muted">not set</span>}</td>
              <td data-label="From"><Chip tone={one.origin === "default" ? "none" : "info"}>{ORIGINS[one.origin] ?? one.origin}</Chip></td>
              <td data-label="Variable">{one.variable && <code>{one.variable.split(/(?<=_)/).map((piece) => <>{piece}<wbr /></>)}</code>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
