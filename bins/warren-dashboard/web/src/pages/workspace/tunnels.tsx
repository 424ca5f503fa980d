// The story of each pair of nodes: which way its traffic goes, since when, why, and how well.
import { useEffect, useState } from "preact/hooks";
import type { ComponentProps } from "preact";
import type { Path, PathEvent, Tunnel, Workspace } from "../../api/types";
import { now } from "../../clock";
import { bytes, latency, rate, sentence } from "../../format";
import { onTunnels } from "../../live";
import { Command } from "../../ui/copy";
import { lazy } from "../../ui/lazy";
import { useLoaded } from "../../ui/load";
import { Ago, Empty, Loading, Problem, Way, type Tone } from "../../ui/parts";
import { api, called } from "../../workspace";
import type ChartType from "../../ui/chart";

const Chart = lazy<ComponentProps<typeof ChartType>>(() => import("../../ui/chart"), "the chart");

export function Tunnels({ workspace }: { workspace: Workspace }) {
  const { data, error, absent, reload } = useLoaded<{ tunnels: Tunnel[] }>(`${api(workspace)}/tunnels`);
  const [chosen, setChosen] = useState<string>();
  useEffect(() => onTunnels((id) => {
    if (!id || id === workspace.id) reload();
  }), [workspace.id, reload]);
  const tunnels = data?.tunnels ?? [];
  const tunnel = tunnels.find((one) => one.id === chosen) ?? tunnels[0];
  if (absent) return null;
  return (
    <section class="card">
      <header>
        <h2>How it is reached</h2>
        {tunnels.length > 1 && (
          <div class="tabs">
            {tunnels.map((one) => (
              <button class="small" aria-pressed={one === tunnel} onClick={() => setChosen(one.id)} key={one.id}>{who(one)}</button>
            ))}
          </div>
        )}
      </header>
      {error !== undefined && <div class="body"><Problem error={error} retry={reload} /></div>}
      {!data && error === undefined && <Loading what="its paths" />}
      {data && !tunnel && (
        <Empty title="Nobody reaches it right now">
          <p>Open a terminal, or run this on your machine: the path it takes, and why, appears here as it happens.</p>
          <Command text={`warren ping ${called(workspace)}`} label="ping the workspace" />
        </Empty>
      )}
      {tunnel && <Story tunnel={tunnel} key={tunnel.id} />}
    </section>
  );
}

/** Whose end of the tunnel that is. */
function who(tunnel: Tunnel): string {
  if (tunnel.kind === "server") return "this server";
  return tunnel.user ? `${tunnel.user} (${short(tunnel.node)})` : short(tunnel.node);
}

function short(id: string): string {
  return id.length > 12 ? `…${id.slice(-6)}` : id;
}

function Story({ tunnel }: { tunnel: Tunnel }) {
  const tone: Tone = tunnel.path.kind === "direct" ? "good" : tunnel.path.kind === "relay" ? "warn" : "bad";
  const { samples } = tunnel;
  const times = samples.map((sample) => Date.parse(sample.at));
  return (
    <div class="body stack">
      {tunnel.verdict && (
        <p class="note" data-tone={tone}>
          {sentence(tunnel.verdict.sentence)}
          {tunnel.verdict.remedy && <small>What would change it: {tunnel.verdict.remedy}</small>}
        </p>
      )}
      <div class="columns">
        <dl class="facts">
          <dt>From</dt><dd>{who(tunnel)}</dd>
          <dt>Path</dt><dd><Way path={tunnel.path} addresses /></dd>
          <dt>Latency</dt><dd class="number">{latency(tunnel.latency_ms)}</dd>
          <dt>Received</dt><dd class="number">{bytes(tunnel.rx_bytes)}</dd>
          <dt>Sent</dt><dd class="number">{bytes(tunnel.tx_bytes)}</dd>
          <dt>Since</dt><dd><Ago time={tunnel.since} /></dd>
        </dl>
        <div>
          <h3>What happened</h3>
          <Timeline history={tunnel.history} />
        </div>
      </div>
      {times.length > 1 && (
        <div>
          <Strip history={tunnel.history} from={times[0] ?? 0} current={tunnel.path} />
          <Chart name="Latency" times={times} format={latency} lines={[{ name: "round trip", colour: "accent", values: samples.map((sample) => sample.latency_ms) }]} />
          <Chart name="Throughput" times={times} format={rate} lines={[
            { name: "received", colour: "accent", values: samples.map((sample) => sample.rx_bits_per_s) },
            { name: "sent", colour: "info", values: samples.map((sample) => sample.tx_bits_per_s) },
          ]} />
        </div>
      )}
    </div>
  );
}

function Timeline({ history }: { history: PathEvent[] }) {
  if (history.length === 0) return <p class="muted">Nothing yet.</p>;
  return (
    <ol class="timeline" tabIndex={0} aria-label="What happened, the latest first">
      {[...history].reverse().map((one, i) => (
        <li data-tone={toneOf(one)} key={`${one.at}${i}`}>
          <Ago time={one.at} />
          <div>
            {one.event}
            {one.path && <> {typeof one.path === "string" ? one.path : <Way path={one.path} addresses />}</>}
            {one.detail && <small>{one.detail}</small>}
          </div>
        </li>
      ))}
    </ol>
  );
}

function toneOf(one: PathEvent): Tone {
  const kind = kindOf(one);
  return kind === "direct" ? "good" : kind === "relay" ? "warn" : kind === "none" ? "bad" : "none";
}

function kindOf({ path }: PathEvent): Path["kind"] | undefined {
  if (!path) return undefined;
  if (typeof path !== "string") return path.kind;
  return /^(direct|relay|none)/.exec(path)?.[1] as Path["kind"] | undefined;
}

/** Which way the traffic went over the time that the charts show. */
function Strip({ history, from, current }: { history: PathEvent[]; from: number; current: Path }) {
  const until = Math.max(now.value, from + 1);
  const changes = history.flatMap((one) => {
    const kind = kindOf(one);
    return kind ? [{ at: Date.parse(one.at), kind }] : [];
  });
  const pieces = changes.map((change, i) => {
    const begin = Math.max(change.at, from);
    const end = changes[i + 1]?.at ?? until;
    return { kind: change.kind, x: (begin - from) / (until - from), width: (end - begin) / (until - from) };
  }).filter((piece) => piece.width > 0);
  const shown = pieces.length > 0 ? pieces : [{ kind: current.kind, x: 0, width: 1 }];
  const share = Math.round(shown.filter((piece) => piece.kind === "direct").reduce((sum, piece) => sum + piece.width, 0) * 100);
  return (
    <figure class="chart">
      <figcaption><strong>Path</strong> <span class="muted">direct for {share} % of this time</span></figcaption>
      <div class="strip">
        <svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img" aria-label={`Direct for ${share} % of the time shown`}>
          {shown.map((piece) => <rect class={piece.kind} x={piece.x} width={piece.width} y="0" height="1" key={piece.x} />)}
        </svg>
      </div>
      <div class="strip-ends"><Ago time={new Date(from).toISOString()} /><span>now</span></div>
    </figure>
  );
}
