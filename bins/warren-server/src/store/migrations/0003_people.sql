-- What people are: locked out or not, and who they are for an OpenID Connect provider. A password hash of '' is none.
ALTER TABLE users ADD COLUMN disabled_at BIGINT;
ALTER TABLE users ADD COLUMN oidc_issuer TEXT;
ALTER TABLE users ADD COLUMN oidc_subject TEXT;
CREATE UNIQUE INDEX users_by_oidc ON users (oidc_issuer, oidc_subject);

-- Tokens for programs ('api'), with a name and a scope. The kinds are a constraint of the table, so that it is made
-- anew, and with it the table that refers to it: dropping the old one would take its rows along.
CREATE TABLE new_tokens (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('session', 'api', 'agent', 'setup')),
    sha256       BLOB NOT NULL UNIQUE,
    user_id      TEXT REFERENCES users (id) ON DELETE CASCADE,
    agent_id     TEXT REFERENCES agents (id) ON DELETE CASCADE,
    name         TEXT NOT NULL DEFAULT '',
    scope        TEXT NOT NULL DEFAULT 'all' CHECK (scope IN ('all', 'read')),
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT
);
INSERT INTO new_tokens (id, kind, sha256, user_id, agent_id, created_at, expires_at)
    SELECT id, kind, sha256, user_id, agent_id, created_at, expires_at FROM tokens;
CREATE TABLE new_node_keys (
    node_key BLOB NOT NULL,
    token_id TEXT NOT NULL REFERENCES new_tokens (id) ON DELETE CASCADE,
    seen_at  BIGINT NOT NULL,
    PRIMARY KEY (node_key, token_id)
);
INSERT INTO new_node_keys (node_key, token_id, seen_at) SELECT node_key, token_id, seen_at FROM node_keys;
DROP TABLE node_keys;
DROP TABLE tokens;
ALTER TABLE new_tokens RENAME TO tokens;
ALTER TABLE new_node_keys RENAME TO node_keys;
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_agent ON tokens (agent_id);
CREATE INDEX node_keys_token ON node_keys (token_id);

-- Whom a workspace is shared with.
CREATE TABLE shares (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX shares_by_user ON shares (user_id);

-- Who did what. Names are as they were then: an entry outlives whom it is about.
CREATE TABLE audit (
    id         TEXT PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    address    TEXT NOT NULL,
    request_id TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
