// The API's description for people, by the document that the server makes from its own code.
import { useEffect, useState } from "preact/hooks";
import { sentence } from "../format";
import { title } from "../router";
import "../styles/api.css";
import { Chip, Empty, Loading, Problem, type Tone } from "../ui/parts";

interface Schema {
  $ref?: string; type?: string | string[]; format?: string; description?: string; enum?: unknown[]; const?: unknown; default?: unknown;
  properties?: Record<string, Schema>; required?: string[]; items?: Schema; allOf?: Schema[]; oneOf?: Schema[]; anyOf?: Schema[]; additionalProperties?: Schema | boolean;
}
interface Parameter { name: string; in: string; required?: boolean; description?: string; schema?: Schema }
interface Body { description?: string; required?: boolean; content?: Record<string, { schema?: Schema }> }
interface Operation { summary?: string; description?: string; tags?: string[]; parameters?: Parameter[]; requestBody?: Body; responses?: Record<string, Body> }
interface Description {
  info: { title: string; version: string; description?: string };
  paths: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, Schema> };
  tags?: { name: string; description?: string }[];
}

const METHODS: Record<string, Tone> = { get: "good", post: "info", put: "warn", patch: "warn", delete: "bad" };
/** Deeper than this no document goes; a schema that names itself would otherwise never end. */
const DEPTH_MAX = 5;

export default function ApiDocs() {
  const [description, setDescription] = useState<Description>();
  const [error, setError] = useState<unknown>();
  const [search, setSearch] = useState("");
  useEffect(() => {
    title("API");
    fetch("/api/openapi.json")
      .then((answer) => (answer.ok ? (answer.json() as Promise<Description>) : Promise.reject(new Error("the server has no description of its API"))))
      .then(setDescription, setError);
  }, []);
  return (
    <main id="main" class="api" tabIndex={-1}>
      <header>
        <a class="brand" href="/workspaces"><img src="/icon.svg" alt="" width="24" height="24" />Warren</a>
        <a href="/api/openapi.json" download="warren-openapi.json">OpenAPI document</a>
      </header>
      <h1>API</h1>
      <p class="muted">{description ? `Version ${description.info.version}. ` : ""}JSON over HTTP. Scripts send an API token as <code>Authorization: Bearer warren_api_…</code>; every answer of 400 and above is a problem with a code, a sentence and a hint.</p>
      {error !== undefined && <Problem error={error} />}
      {!description && error === undefined && <Loading what="the description" />}
      {description && (
        <>
          <div class="bar"><input class="search" type="search" placeholder="Search" aria-label="Search requests (key /)" value={search} onInput={(event) => setSearch(event.currentTarget.value)} /></div>
          <Groups description={description} search={search.trim().toLowerCase()} />
        </>
      )}
    </main>
  );
}

interface Entry { path: string; method: string; operation: Operation }

function Groups({ description, search }: { description: Description; search: string }) {
  const about = new Map((description.tags ?? []).map((tag) => [tag.name, tag.description]));
  const groups = new Map<string, Entry[]>([...about.keys()].map((name) => [name, []]));
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!(method in METHODS) || !`${method} ${path} ${operation.summary ?? ""}`.toLowerCase().includes(search)) continue;
      const tag = operation.tags?.[0] ?? "Other";
      groups.set(tag, [...(groups.get(tag) ?? []), { path, method, operation }]);
    }
  }
  const shown = [...groups].filter(([, entries]) => entries.length > 0);
  if (shown.length === 0) return <Empty title="No request matches" />;
  const schemas = description.components?.schemas ?? {};
  return (
    <>
      {shown.map(([tag, entries]) => (
        <section key={tag}>
          <div><h2>{sentence(tag)}</h2>{about.get(tag) && <p class="muted">{about.get(tag)}</p>}</div>
          <div class="card">{entries.map((entry) => <Request {...entry} schemas={schemas} key={entry.method + entry.path} />)}</div>
        </section>
      ))}
    </>
  );
}

function Request({ path, method, operation, schemas }: Entry & { schemas: Record<string, Schema> }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary><Chip tone={METHODS[method] ?? "none"}>{method.toUpperCase()}</Chip> <code>{path}</code> <span class="muted">{operation.summary}</span></summary>
      {open && (
        <div class="request">
          {operation.description && operation.description !== operation.summary && <p>{operation.description}</p>}
          {operation.parameters && operation.parameters.length > 0 && (
            <>
              <h3>Parameters</h3>
              <ul>{operation.parameters.map((one) => <li key={one.name}><code>{one.name}</code> <span class="muted">{one.in}, {named(one.schema)}{one.required ? "" : ", optional"}</span> {one.description}</li>)}</ul>
            </>
          )}
          {operation.requestBody && <><h3>Body</h3><Contents body={operation.requestBody} schemas={schemas} /></>}
          {Object.entries(operation.responses ?? {}).map(([status, body]) => (
            <div key={status}><h3>{status} <span class="muted">{body.description}</span></h3><Contents body={body} schemas={schemas} /></div>
          ))}
        </div>
      )}
    </details>
  );
}

function Contents({ body, schemas }: { body: Body; schemas: Record<string, Schema> }) {
  return <>{Object.entries(body.content ?? {}).map(([type, { schema }]) => (schema ? <Shape schema={schema} schemas={schemas} depth={0} key={type} /> : <code key={type}>{type}</code>))}</>;
}

/** The fields of a document. */
function Shape({ schema, schemas, depth }: { schema: Schema; schemas: Record<string, Schema>; depth: number }) {
  const known = resolved(schema, schemas);
  const fields = Object.entries(known.properties ?? {});
  const inner = known.items ?? (typeof known.additionalProperties === "object" ? known.additionalProperties : undefined);
  if (depth > DEPTH_MAX) return null;
  if (fields.length === 0) return inner ? <Shape schema={inner} schemas={schemas} depth={depth + 1} /> : depth === 0 ? <p class="muted">{named(schema)}</p> : null;
  return (
    <ul class="shape">
      {fields.map(([name, field]) => (
        <li key={name}>
          <code>{name}</code> <span class="muted">{named(field)}{known.required?.includes(name) ? "" : ", optional"}</span> {field.description}
          <Shape schema={field} schemas={schemas} depth={depth + 1} />
        </li>
      ))}
    </ul>
  );
}

/** A schema with its references and parts put together. */
function resolved(schema: Schema, schemas: Record<string, Schema>): Schema {
  if (schema.$ref) return resolved(schemas[reference(schema.$ref)] ?? {}, schemas);
  const parts = schema.allOf ?? (schema.oneOf ?? schema.anyOf ?? []).filter((one) => one.type !== "null").slice(0, 1);
  return parts.reduce<Schema>((whole, one) => {
    const more = resolved(one, schemas);
    return { ...more, ...whole, properties: { ...more.properties, ...whole.properties }, required: [...(more.required ?? []), ...(whole.required ?? [])] };
  }, schema);
}

function reference(text: string): string {
  return text.split("/").at(-1) ?? text;
}

/** What a field holds, in a few words. */
function named(schema: Schema | undefined): string {
  if (!schema) return "anything";
  if (schema.$ref) return reference(schema.$ref);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const choices = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (choices) return choices.map(named).join(schema.allOf ? " & " : " | ");
  if (schema.items) return `list of ${named(schema.items)}`;
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : (schema.type ?? "anything");
  return schema.format ? `${type} (${schema.format})` : type;
}
