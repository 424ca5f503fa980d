// Pages that come when they are asked for.
import type { ComponentType, FunctionComponent } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Loading, Problem } from "./parts";

export function lazy<P extends object>(load: () => Promise<{ default: ComponentType<P> }>, what: string): FunctionComponent<P> {
  let Loaded: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [, setReady] = useState(Loaded !== undefined);
    const [error, setError] = useState<unknown>();
    useEffect(() => {
      if (Loaded) return;
      load().then(
        (module) => {
          Loaded = module.default;
          setReady(true);
        },
        // After an upgrade the old page's parts are gone: the page itself has to come anew.
        () => setError(new Error("this part of the page could not be loaded: the server may have been upgraded")),
      );
    }, []);
    if (error !== undefined) return <Problem error={error} retry={() => location.reload()} />;
    return Loaded ? <Loaded {...props} /> : <Loading what={what} />;
  };
}
