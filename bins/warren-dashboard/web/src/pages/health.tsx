// What was checked, what was found, and what to do about it.
import { useEffect } from "preact/hooks";
import type { Check, Health } from "../api/types";
import { latency, sentence } from "../format";
import { title } from "../router";
import "../styles/network.css";
import { useLoaded } from "../ui/load";
import { Ago, Chip, Head, Loading, Problem, State } from "../ui/parts";
import { TONES } from "../health";

/** How often it is asked for while somebody looks, in milliseconds. */
const EVERY_MS = 15_000;
const WORST_FIRST = ["error", "warning", "ok"];
const SENTENCES = { ok: "Everything that is checked is well.", warning: "The server works, and something needs a look.", error: "Something does not work." };

export default function HealthPage() {
  useEffect(() => title("Health"), []);
  const { data, error, reload } = useLoaded<Health>("/health", EVERY_MS);
  const checks = data && [...data.checks].sort((a, b) => WORST_FIRST.indexOf(a.status) - WORST_FIRST.indexOf(b.status));
  return (
    <>
      <Head name="Health" about={data ? SENTENCES[data.status] : undefined}>
        <button onClick={reload}>Check again</button>
      </Head>
      {error !== undefined && <Problem error={error} retry={reload} />}
      {!data && error === undefined && <Loading what="checks" />}
      <div class="checks">{checks?.map((check) => <One check={check} key={check.code + check.name} />)}</div>
    </>
  );
}

function One({ check }: { check: Check }) {
  return (
    <section class="card check" id={check.code}>
      <h2><State tone={TONES[check.status]}>{check.name}</State>{check.status !== "ok" && <Chip tone={TONES[check.status]}>{check.code}</Chip>}</h2>
      <span class="muted nowrap"><small>{latency(check.duration_ms)} · <Ago time={check.checked_at} /></small></span>
      <p class="detail">{sentence(check.detail)}</p>
      {(check.cause || check.remedy) && (
        <dl class="facts">
          {check.cause && <><dt>Cause</dt><dd>{sentence(check.cause)}</dd></>}
          {check.remedy && <><dt>What to do</dt><dd>{sentence(check.remedy)}</dd></>}
        </dl>
      )}
    </section>
  );
}
