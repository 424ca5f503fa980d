// How levels of health look and read.
import type { Level } from "./api/types";
import type { Tone } from "./ui/parts";

export const TONES: Record<Level, Tone> = { ok: "good", warning: "warn", error: "bad" };
export const WORDS: Record<Level, string> = { ok: "well", warning: "warning", error: "failing" };
