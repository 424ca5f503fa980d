// Asking for a page's document, anew when it changes.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Failure, get } from "../api/client";
import { onReturn } from "../live";

/** `absent`: this server has no such thing. */
export interface Loaded<T> { data: T | undefined; error: unknown; absent: boolean; reload: () => void }

/** Asks for `path` now, each `everyMs` while somebody looks, and when the connection is back. */
export function useLoaded<T>(path: string, everyMs?: number): Loaded<T> {
  const [data, setData] = useState<T>();
  const [error, setError] = useState<unknown>();
  const asked = useRef(0);
  const reload = useCallback(() => {
    const mine = ++asked.current;
    get<T>(path).then(
      (document) => {
        if (mine !== asked.current) return;
        setData(document);
        setError(undefined);
      },
      (problem: unknown) => {
        if (mine === asked.current) setError(problem);
      },
    );
  }, [path]);
  useEffect(() => {
    setData(undefined);
    setError(undefined);
    reload();
    const stop = onReturn(reload);
    const timer = everyMs ? setInterval(() => { if (!document.hidden) reload(); }, everyMs) : undefined;
    return () => {
      asked.current += 1;
      stop();
      clearInterval(timer);
    };
  }, [reload, everyMs]);
  return { data, error, absent: error instanceof Failure && error.code === "PATH_NOT_FOUND", reload };
}
