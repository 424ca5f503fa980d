// Lines over time. The drawing is uPlot's; the words under it say the same to those who do not see it.
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme } from "../theme";

export interface Line { name: string; colour: string; values: (number | null)[] }

const HEIGHT = 170;

/** `times` in milliseconds; `format` writes a value. */
export default function Chart({ name, times, lines, format }: {
  name: string; times: number[]; lines: Line[]; format: (value: number | null) => string;
}) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const data = useMemo(() => [times.map((time) => time / 1000), ...lines.map((line) => line.values)] as uPlot.AlignedData, [times, lines]);
  const latest = useRef(data);
  latest.current = data;
  const names = lines.map((line) => line.name).join();
  const colours = theme.value;
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const draw = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element, lines, format), latest.current, element);
    };
    draw();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => {
      dark.removeEventListener("change", draw);
      resized.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
    // Drawn anew only for other lines or colours, then with the values of that time: new ones come by `setData` below.
  }, [names, colours]);
  useEffect(() => plot.current?.setData(data), [data]);
  return (
    <figure class="chart">
      <figcaption>
        <strong>{name}</strong>
        {lines.map((line) => (
          <span class="key" data-line={line.colour} key={line.name}>{line.name} <span class="number">{summary(line.values, format)}</span></span>
        ))}
      </figcaption>
      <div ref={place} aria-hidden="true" />
    </figure>
  );
}

function summary(values: (number | null)[], format: (value: number | null) => string): string {
  const known = values.filter((value) => value !== null);
  const last = known.at(-1);
  if (last === undefined) return "not measured yet";
  return `${format(last)}, ${format(Math.min(...known))} to ${format(Math.max(...known))}`;
}

function options(element: HTMLElement, lines: Line[], format: (value: number | null) => string): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const axis: uPlot.Axis = {
    stroke: colour("muted"), font: `11px ${style.fontFamily}`, grid: { stroke: colour("line"), width: 1 }, ticks: { show: false },
  };
  return {
    // The last time on the axis is centred under its tick: half of it lies beyond the plot.
    width: element.clientWidth, height: HEIGHT, padding: [null, 24, null, null], legend: { show: false }, cursor: { y: false, points: { size: 6 } },
    scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.15, 1)] } },
    axes: [
      { ...axis, size: 30, space: 90, values: (_, ticks) => ticks.map((tick) => clock(tick, (ticks.at(-1) ?? 0) - (ticks[0] ?? 0))) },
      { ...axis, size: 78, values: (_, ticks) => ticks.map((tick) => format(tick)) },
    ],
    series: [{}, ...lines.map((line) => ({ label: line.name, stroke: colour(line.colour), width: 1.6, spanGaps: false, points: { show: false }, ...(line.colour === "accent" ? {} : { dash: [5, 3] }) }))],
  };
}

/** The time at a tick of an axis that spans so many seconds: with seconds where minutes would all be the same. */
function clock(tick: number, span: number): string {
  const seconds = span < 300 ? { second: "2-digit" } as const : {};
  return new Date(tick * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...seconds });
}
