-- The node keys that each token's bearer has connected with: what a relay asks about.
CREATE TABLE node_keys (
    node_key BLOB NOT NULL,
    token_id TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    seen_at  BIGINT NOT NULL,
    PRIMARY KEY (node_key, token_id)
);
CREATE INDEX node_keys_token ON node_keys (token_id);
