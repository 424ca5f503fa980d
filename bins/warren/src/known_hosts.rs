//! The file in which OpenSSH keeps the host keys of workspaces, a line each.
//!
//! What proves a workspace's identity is the tunnel, whose key is pinned; the host key is asked for because OpenSSH wants
//! one. So a line too many may go: the next connection writes it again.

/// The file without the host keys of this workspace, whatever the host names' suffix is. Lines whose names are hashed go
/// as well, since nobody can tell whose they are.
pub(crate) fn without(file: &[u8], workspace: &str) -> Vec<u8> {
    let beginning = format!("{}.", workspace.to_ascii_lowercase());
    let is_other = |line: &&[u8]| !is_of(line, &beginning);
    file.split_inclusive(|byte| *byte == b'\n').filter(is_other).flatten().copied().collect()
}

/// Whether a line has a key of a host whose name begins so.
fn is_of(line: &[u8], beginning: &str) -> bool {
    let hosts = line.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    hosts.split(|byte| *byte == b',').any(|host| {
        // `[name]:port` where the port is not 22.
        let host = host.strip_prefix(b"[").unwrap_or(host).to_ascii_lowercase();
        host.starts_with(b"|1|") || host.starts_with(beginning.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_one_workspace_go() {
        let file = "# mine\ndev.warren ssh-ed25519 AAAA\nDev.alice.warren,192.0.2.7 ssh-ed25519 AAAA\n\
             [dev.work]:2222 ssh-ed25519 AAAA\n|1|salt|hash ssh-ed25519 AAAA\ndevel.warren ssh-ed25519 BBBB\n\
             other.dev.warren ssh-ed25519 CCCC\n\n@revoked dev.warren ssh-ed25519 DDDD";
        let left = without(file.as_bytes(), "dev");
        assert_eq!(
            String::from_utf8_lossy(&left),
            "# mine\ndevel.warren ssh-ed25519 BBBB\nother.dev.warren ssh-ed25519 CCCC\n\n\
             @revoked dev.warren ssh-ed25519 DDDD"
        );
        assert_eq!(without(&left, "dev"), left);
    }
}
