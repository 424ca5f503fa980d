// The documents of the API, as `/api/openapi.json` describes them.

export type Role = "owner" | "admin" | "member";
export interface User { id: string; name: string; role: Role; created_at: string; disabled?: boolean }
export interface Me { user: User; expires_at: string }
export interface Grant { token: string; expires_at: string; user: User }
export interface BuildInfo { name: string; version: string; coordination: string; access_url: string; setup_required: boolean }
export interface LoginMethods { password: boolean; oidc: { name: string } | null }

export type Status = "connected" | "offline";
export interface Agent { id: string; name: string; status: Status; last_seen?: string; version?: string; home_relay?: number; node_key?: string }
export interface Path { kind: "direct" | "relay" | "none"; relay?: string | null; address?: string | null }
export interface Workspace {
  id: string; name: string; owner: string; access?: "owner" | "admin" | "shared"; status: Status; created_at: string; agents: Agent[];
  path?: Path | null; latency_ms?: number | null; rx_bytes?: number | null; tx_bytes?: number | null;
}
export interface CreatedWorkspace { workspace: Workspace; agent_token: string; command: string }

export interface Verdict { sentence: string; whose?: string | null; remedy?: string | null }
export interface PathEvent { at: string; event: string; path?: Path | string | null; detail?: string | null }
export interface Sample { at: string; latency_ms: number | null; rx_bits_per_s: number | null; tx_bits_per_s: number | null }
export interface Tunnel {
  id: string; node: string; user?: string | null; kind: "client" | "server"; path: Path; latency_ms: number | null;
  rx_bytes: number; tx_bytes: number; since: string; verdict: Verdict | null; history: PathEvent[]; samples: Sample[];
}

export interface Port { port: number; process?: string | null; protocol?: string | null; url?: string }
export type Sharing = "owner" | "signed_in" | "public";
export interface WebApp { slug: string; name: string; port: number; scheme: "http" | "https"; sharing: Sharing; cors?: string[]; url: string }
export interface TerminalSession { id: string; started_at: string; command: string; cols: number; rows: number; viewers: number; last_active_at: string }
export interface Share { user: string; created_at: string }

/** Tailscale's document, as far as it is read here. */
export interface RelayMap { Regions: Record<string, { RegionCode: string; RegionName: string }> }
export interface RelayNode { name: string; host: string; stun_port: number; derp_port: number; latency_ms: number | null; stun: boolean | null; derp: boolean | null; error?: string | null }
export interface Region {
  id: number; code: string; name: string; embedded: boolean; latitude?: number | null; longitude?: number | null;
  latency_ms: number | null; health: Level; clients: number | null; bytes_in: number | null; bytes_out: number | null; nodes: RelayNode[];
}
export type Level = "ok" | "warning" | "error";
export interface Check { code: string; name: string; status: Level; detail: string; cause?: string | null; remedy?: string | null; checked_at: string; duration_ms: number }
export interface Health { status: Level; checks: Check[] }
export interface Setting { name: string; value: string | null; origin: "flag" | "environment" | "file" | "default"; variable?: string | null; help?: string | null }
export interface Replica { id: string; version: string; started_at: string; access_url: string; this: boolean }

export interface TokenInfo {
  id: string; name: string; kind: "api" | "session"; scope: "all" | "read"; created_at: string;
  expires_at: string | null; last_used_at: string | null; current: boolean;
}
/** Absent words are empty. */
export interface AuditEntry { id: string; at: string; actor: string; action: string; target: string; address: string; request_id: string; detail: string }
