//! `proto-core` is pure: proven by its dependency tree and by clippy's bans, not promised.

use std::collections::BTreeSet;
use std::process::Command;
use tests::root;

/// Crates that reach for the world (sockets, clocks, threads, entropy) or for the tunnel's engine.
const WORLD: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "rustix",
    "libc",
    "nix",
    "getrandom",
    "rand",
    "boringtun",
    "quinn-proto",
    "quinn-udp",
    "ring",
    "rustls",
    "hyper",
    "axum",
    "reqwest",
    "prometheus-client",
    "metrics",
    "async-std",
    "smol",
    "turmoil",
];

fn dependencies(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn impure(dependencies: &BTreeSet<String>) -> Vec<&'static str> {
    WORLD.iter().copied().filter(|name| dependencies.contains(*name)).collect()
}

#[test]
fn proto_core_depends_on_nothing_of_the_world() {
    let found = impure(&dependencies("proto-core"));
    assert!(
        found.is_empty(),
        "proto-core depends on {found:?}; see `cargo tree -p proto-core -e normal -i NAME`"
    );
}

#[test]
fn the_check_sees_the_world_where_it_is() {
    let found = impure(&dependencies("io-adapters"));
    for name in ["tokio", "boringtun", "socket2", "getrandom"] {
        assert!(found.contains(&name), "io-adapters is known to depend on {name}; found {found:?}");
    }
}

#[test]
fn clippy_bans_clocks_threads_sockets_and_unordered_maps_in_proto_core() {
    let bans = std::fs::read_to_string(root().join("proto-core/clippy.toml"))
        .expect("proto-core has bans of its own");
    for name in [
        "std::collections::HashMap",
        "std::collections::HashSet",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::thread::spawn",
        "std::net::UdpSocket::bind",
    ] {
        assert!(bans.contains(&format!("\"{name}\"")), "proto-core/clippy.toml no longer bans {name}");
    }
    let mut lib = std::fs::read_to_string(root().join("proto-core/src/lib.rs")).expect("lib.rs");
    lib.retain(|c| !c.is_whitespace());
    assert!(lib.contains("#![forbid(unsafe_code)]"));
    // The bans are enforced by clippy with warnings denied, in every run of the tests; nothing may switch them off.
    let allowed = Command::new("grep")
        .args(["-rlE", r"allow\(clippy::(disallowed_types|disallowed_methods)", "proto-core/src"])
        .current_dir(root())
        .output()
        .expect("grep runs");
    assert!(allowed.stdout.is_empty(), "switched off in {}", String::from_utf8_lossy(&allowed.stdout));
}
