// Where a workspace is, for links, the API and commands.
import { part } from "./api/client";
import type { Workspace } from "./api/types";
import { user } from "./session";

type Named = Pick<Workspace, "owner" | "name">;

/** Its page. */
export function address({ owner, name }: Named): string {
  return `/workspaces/${part(owner)}/${part(name)}`;
}

/** Its place in the API. */
export const api = address;

/** What to call it on the command line: by its name alone if it is one's own. */
export function called({ owner, name }: Named): string {
  return owner === user.value?.name ? name : `${owner}/${name}`;
}
