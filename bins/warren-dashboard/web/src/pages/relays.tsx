// Where the relays are and how they do.
import land from "virtual:land";
import { useEffect } from "preact/hooks";
import type { Region } from "../api/types";
import { bytes, latency } from "../format";
import { TONES, WORDS } from "../health";
import { title } from "../router";
import "../styles/network.css";
import { useLoaded } from "../ui/load";
import { Chip, Empty, Head, Loading, Problem, State } from "../ui/parts";

/** How often they are asked about while somebody looks, in milliseconds. */
const EVERY_MS = 10_000;

export default function Relays() {
  useEffect(() => title("Relays"), []);
  const { data, error, reload } = useLoaded<{ regions: Region[] }>("/relays", EVERY_MS);
  return (
    <>
      <Head name="Relays" about="Nodes meet through a relay, and stay there only while no direct path works. Relays see nothing of what they pass on." />
      {error !== undefined && <Problem error={error} retry={reload} />}
      {!data && error === undefined && <Loading what="relays" />}
      {data?.regions.length === 0 && (
        <div class="card"><Empty title="There is no relay"><p>Start the server with <code>--derp-server-enable</code>, or name others with <code>--derp-config-path</code>.</p></Empty></div>
      )}
      {data && data.regions.length > 0 && <div class="card"><World regions={data.regions} /><Regions regions={data.regions} /></div>}
    </>
  );
}

function World({ regions }: { regions: Region[] }) {
  const placed = regions.filter((region) => region.latitude != null && region.longitude != null);
  if (placed.length === 0) return null;
  const text = placed.map((region) => `${region.name}: ${WORDS[region.health]}, ${latency(region.latency_ms)}`).join("; ");
  return (
    <svg class="map" viewBox="-180 -84 360 144" role="img" aria-label={`Map of relays. ${text}`}>
      <path class="land" d={land} />
      {placed.map((region) => (
        <g transform={`translate(${region.longitude} ${-(region.latitude ?? 0)})`} key={region.id}>
          <circle class={`place ${region.health}`} r="3.6"><title>{region.name}</title></circle>
          <text x="6" y="3">{region.code}</text>
        </g>
      ))}
    </svg>
  );
}

function Regions({ regions }: { regions: Region[] }) {
  return (
    <div class="table fold-rows">
      <table>
        <thead>
          <tr>
            <th scope="col">Region</th><th scope="col">Health</th><th scope="col" class="right">Latency</th><th scope="col" class="right">Clients</th>
            <th scope="col" class="right">In / out</th><th scope="col">STUN</th><th scope="col">Nodes</th>
          </tr>
        </thead>
        <tbody>
          {regions.map((region) => (
            <tr key={region.id}>
              <td class="lead">
                <strong>{region.name}</strong> {region.embedded && <Chip>in this server</Chip>}
                <span class="sub">{region.code} · region {region.id}</span>
              </td>
              <td data-label="Health"><State tone={TONES[region.health] ?? "none"}>{WORDS[region.health] ?? region.health}</State></td>
              <td data-label="Latency" class="right number">{latency(region.latency_ms)}</td>
              <td data-label="Clients" class="right number">{region.clients ?? "–"}</td>
              <td data-label="In / out" class="right number nowrap">{region.bytes_in == null ? "–" : `${bytes(region.bytes_in)} / ${bytes(region.bytes_out)}`}</td>
              <td data-label="STUN">{stun(region)}</td>
              <td data-label="Nodes" class="break">
                <div>{region.nodes.map((node) => (
                  <div key={node.name}>{node.host}{node.error && <span class="sub">{node.error}</span>}</div>
                ))}</div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function stun({ nodes }: Region) {
  const asked = nodes.filter((node) => node.stun != null);
  if (asked.length === 0) return <span class="muted">–</span>;
  return asked.every((node) => node.stun) ? <State tone="good">answers</State> : <State tone="bad">silent</State>;
}
