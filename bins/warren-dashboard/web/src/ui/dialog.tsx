// A dialog of the browser's own: it keeps the focus, and Escape closes it.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { words } from "../api/client";

export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const name = useId();
  useEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={name} onCancel={(event) => { event.preventDefault(); onClose(); }}>
      <div class="dialog">
        <header>
          <h2 id={name}>{title}</h2>
          <button class="quiet small" type="button" aria-label="Close" onClick={onClose}>✕</button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** Asks before something is gone for good. */
export function Confirm({ title, action, onConfirm, onClose, children }: {
  title: string; action: string; onConfirm: () => Promise<void>; onClose: () => void; children: ComponentChildren;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const confirm = async (): Promise<void> => {
    setBusy(true);
    try {
      await onConfirm();
      onClose();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <div>{children}</div>
      {error !== undefined && <p class="note" data-tone="bad" role="alert">{words(error)}</p>}
      <footer>
        <button type="button" onClick={onClose}>Cancel</button>
        <button type="button" class="danger" disabled={busy} onClick={() => void confirm()}>{action}</button>
      </footer>
    </Dialog>
  );
}
