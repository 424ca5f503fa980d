import type { ComponentChildren } from "preact";

/** A page without navigation, for who is not logged in. */
export function Alone({ name, about, children }: { name: string; about?: ComponentChildren; children: ComponentChildren }) {
  return (
    <main class="alone" tabIndex={-1}>
      <div>
        <div class="brand"><img src="/icon.svg" alt="" width="24" height="24" />Warren</div>
        <h1>{name}</h1>
        {about && <p class="muted">{about}</p>}
        {children}
      </div>
    </main>
  );
}
