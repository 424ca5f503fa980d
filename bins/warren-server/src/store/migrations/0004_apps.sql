-- Web apps of workspaces. `cors` has origins, separated by spaces.
CREATE TABLE apps (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    slug         TEXT NOT NULL,
    name         TEXT NOT NULL,
    port         BIGINT NOT NULL CHECK (port BETWEEN 1 AND 65535),
    scheme       TEXT NOT NULL CHECK (scheme IN ('http', 'https')),
    sharing      TEXT NOT NULL CHECK (sharing IN ('owner', 'signed_in', 'public')),
    cors         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, slug)
);
