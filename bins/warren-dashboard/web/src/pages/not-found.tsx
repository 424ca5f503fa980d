import { useEffect } from "preact/hooks";
import { title } from "../router";
import { Empty } from "../ui/parts";

export function NotFound() {
  useEffect(() => title("No such page"), []);
  return (
    <div class="card">
      <Empty title="There is no such page">
        <p>The link may be old or mistyped.</p>
        <a class="button" href="/workspaces">To the workspaces</a>
      </Empty>
    </div>
  );
}
