//! `proto-core` is pure: proven by its dependency tree and by clippy's bans, not promised.

use std::collections::BTreeSet;
use std::process::Command;
use tests::root;

/// Every crate that proto-core may depend on, at any depth: ciphers, hashes, seeded randomness, documents, and
/// what their macros are made of. None reaches for sockets, clocks, threads or the system's entropy.
const ALLOWED: &[&str] = &[
    "aead",
    "blake2",
    "block-buffer",
    "cfg-if",
    "cipher",
    "cpufeatures",
    "crypto-common",
    "crypto_secretbox",
    "curve25519-dalek",
    "curve25519-dalek-derive",
    "digest",
    "generic-array",
    // For the table within `key::KeyMap`, which can't be walked through; its maps are banned below.
    "hashbrown",
    "inout",
    "itoa",
    "memchr",
    "opaque-debug",
    "poly1305",
    "ppv-lite86",
    "proc-macro2",
    "proto-core",
    "quote",
    "rand_chacha",
    "rand_core",
    "salsa20",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "subtle",
    "syn",
    "thiserror",
    "thiserror-impl",
    "typenum",
    "unicode-ident",
    "universal-hash",
    "x25519-dalek",
    "zerocopy",
    "zeroize",
    "zmij",
];

/// What the feature `openapi` adds, which only the server asks for: descriptions of documents, at start.
const ALLOWED_FOR_OPENAPI: &[&str] = &[
    "aho-corasick",
    "equivalent",
    "indexmap",
    "regex",
    "regex-automata",
    "regex-syntax",
    "utoipa",
    "utoipa-gen",
];

fn dependencies(package: &str, features: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", package, "--features", features])
        .args(["-e", "normal", "--prefix", "none", "-f", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn foreign(dependencies: &BTreeSet<String>) -> Vec<&str> {
    dependencies.iter().map(String::as_str).filter(|name| !ALLOWED.contains(name)).collect()
}

#[test]
fn proto_core_depends_on_nothing_of_the_world() {
    let dependencies = dependencies("proto-core", "");
    assert!(dependencies.contains("serde_json"), "the list is that of proto-core: {dependencies:?}");
    let foreign = foreign(&dependencies);
    assert!(
        foreign.is_empty(),
        "proto-core depends on {foreign:?}, which nobody has looked at; see `cargo tree -p proto-core -e normal -i NAME`"
    );
}

#[test]
fn schemas_of_its_documents_bring_nothing_of_the_world() {
    let mut dependencies = dependencies("proto-core", "openapi");
    assert!(dependencies.contains("utoipa"), "the feature is on: {dependencies:?}");
    dependencies.retain(|name| !ALLOWED_FOR_OPENAPI.contains(&name.as_str()));
    assert_eq!(foreign(&dependencies), Vec::<&str>::new());
}

#[test]
fn the_check_sees_the_world_where_it_is() {
    let dependencies = dependencies("io-adapters", "");
    let foreign = foreign(&dependencies);
    for name in ["tokio", "boringtun", "socket2", "getrandom"] {
        assert!(foreign.contains(&name), "io-adapters is known to depend on {name}; found {foreign:?}");
    }
}

#[test]
fn clippy_bans_clocks_threads_sockets_and_unordered_maps_in_proto_core() {
    let bans = std::fs::read_to_string(root().join("proto-core/clippy.toml"))
        .expect("proto-core has bans of its own");
    for name in [
        "std::collections::HashMap",
        "std::collections::HashSet",
        "hashbrown::HashMap",
        "hashbrown::HashSet",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::thread::spawn",
        "std::thread::Builder::spawn",
        "std::net::UdpSocket::bind",
        "std::net::TcpListener::bind",
        "std::fs::File",
        "std::process::Command",
        "std::sync::RwLock",
    ] {
        assert!(bans.contains(&format!("\"{name}\"")), "proto-core/clippy.toml no longer bans {name}");
    }
    let mut lib = std::fs::read_to_string(root().join("proto-core/src/lib.rs")).expect("lib.rs");
    lib.retain(|c| !c.is_whitespace());
    assert!(lib.contains("#![forbid(unsafe_code)]"));
    // The bans are enforced by clippy with warnings denied, in every run of the tests; nothing may switch them off.
    let off = Command::new("grep")
        .args(["-rlE", r"clippy::(disallowed|all|style)", "proto-core/src"])
        .current_dir(root())
        .output()
        .expect("grep runs");
    assert!(off.stdout.is_empty(), "switched off in {}", String::from_utf8_lossy(&off.stdout));
}
