// Forms: a labelled field, and sending with what went wrong said at the button.
import type { ComponentChildren, JSX } from "preact";
import { useId, useState } from "preact/hooks";
import { Failure } from "../api/client";
import { Problem } from "./parts";

type FieldProps = Omit<JSX.InputHTMLAttributes<HTMLInputElement>, "onInput"> & {
  label: string; hint?: ComponentChildren; value: string; onValue: (value: string) => void;
};

export function Field({ label, hint, onValue, ...rest }: FieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input id={id} {...(hint ? { "aria-describedby": `${id}-hint` } : {})} {...rest} onInput={(event) => onValue(event.currentTarget.value)} />
      {hint && <small id={`${id}-hint`}>{hint}</small>}
    </div>
  );
}

export function Choice<T extends string>({ label, value, options, onValue }: {
  label: string; value: T; options: readonly (readonly [T, string])[]; onValue: (value: T) => void;
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onValue(event.currentTarget.value as T)}>
        {options.map(([name, text]) => <option value={name} key={name}>{text}</option>)}
      </select>
    </div>
  );
}

/** A form that is sent once at a time. What the server refuses is shown above the button. */
export function Form({ action, busyAction, onSend, children, extra }: {
  action: string; busyAction?: string; onSend: () => Promise<void>; children: ComponentChildren; extra?: ComponentChildren;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const send = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await onSend();
    } catch (problem) {
      setError(problem instanceof Failure ? problem : new Error(String(problem)));
    }
    setBusy(false);
  };
  return (
    <form onSubmit={(event) => void send(event)}>
      {children}
      {error !== undefined && <div class="field"><Problem error={error} /></div>}
      <div class="actions">
        <button class="primary" disabled={busy}>{busy ? (busyAction ?? action) : action}</button>
        {extra}
      </div>
    </form>
  );
}
