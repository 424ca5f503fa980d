// The world's coasts as one SVG path, for the map of relays: Natural Earth's 1:110 million land (public domain) in an
// equirectangular projection, one unit a degree.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const NAME = "virtual:land";

/** A Vite plugin that offers the path as the module `virtual:land`. */
export function land() {
  return {
    name: "land",
    resolveId: (id) => (id === NAME ? `\0${NAME}` : undefined),
    load: (id) => (id === `\0${NAME}` ? `export default ${JSON.stringify(path())};` : undefined),
  };
}

function path() {
  const file = createRequire(import.meta.url).resolve("world-atlas/land-110m.json");
  const topology = JSON.parse(readFileSync(file, "utf8"));
  const arcs = topology.arcs.map((arc) => decoded(arc, topology.transform));
  const rings = topology.objects.land.geometries.flatMap((geometry) =>
    geometry.type === "MultiPolygon" ? geometry.arcs.flat() : geometry.arcs,
  );
  return rings
    .map((ring) => ring.flatMap((index, i) => along(arcs, index).slice(i === 0 ? 0 : 1)))
    // Antarctica has no relays.
    .filter((points) => points.some(([, latitude]) => latitude > -60))
    .map((points) => points.map((point, i) => step(points[i - 1], point)).join("") + "Z")
    .join("");
}

/** A line, or a new beginning at the date line, which no line may cross from one edge of the map to the other. */
function step(before, [x, y]) {
  const draws = before !== undefined && Math.abs(x - before[0]) < 180;
  return `${draws ? "L" : "M"}${short(x)} ${short(-y)}`;
}

/** A topology's arcs are differences of whole numbers. */
function decoded(arc, { scale, translate }) {
  let [x, y] = [0, 0];
  return arc.map(([dx, dy]) => {
    x += dx;
    y += dy;
    return [x * scale[0] + translate[0], y * scale[1] + translate[1]];
  });
}

/** The complement of an index is the same arc backwards. */
function along(arcs, index) {
  return index >= 0 ? arcs[index] : [...arcs[~index]].reverse();
}

function short(degrees) {
  return String(Math.round(degrees * 10) / 10);
}
