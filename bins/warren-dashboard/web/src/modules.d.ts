declare module "virtual:land" {
  /** The world's coasts as an SVG path, one unit a degree, north up. */
  const path: string;
  export default path;
}
