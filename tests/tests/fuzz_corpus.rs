//! Replays the fuzz targets' corpus, and then a bounded number of mutations of it, the same in every run.
#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(unreachable_pub, reason = "it is a crate of its own for cargo-fuzz")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use proto_core::key::hex;
use proto_core::seed::{Rng, Seed};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use targets::{TARGETS, Target};

/// Mutations a target. All together take a few seconds.
const MUTATIONS: usize = 10_000;
/// The most bytes of a mutation.
const LENGTH_MAX: usize = 4_096;

/// The corpus of a target in the order of the files' names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn run(name: &str, what: &str, target: Target, bytes: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    assert!(outcome.is_ok(), "the target {name} panicked on {what}: {}", hex(bytes));
}

fn mutate(bytes: &mut Vec<u8>, others: &[(String, Vec<u8>)], rng: &mut Rng) {
    let position = |rng: &mut Rng, bytes: &[u8]| rng.range(0..bytes.len() as u64) as usize;
    for _ in 0..=rng.range(0..4) {
        let at = position(rng, bytes);
        match rng.range(0..9) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.u64() as u8),
            2 if !bytes.is_empty() => _ = bytes.remove(at),
            3 => bytes.extend_from_within(at..),
            4 => {
                let other = &others[rng.range(0..others.len() as u64) as usize].1;
                let from = position(rng, other);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 => {
                let number =
                    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, u32::MAX][rng.range(0..8) as usize];
                let number: [u8; 4] = number.to_be_bytes();
                bytes.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = new);
            }
            6 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *b"{}[]\",:-0".get(rng.range(0..9) as usize).unwrap();
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.range(0..8);
                }
            }
        }
    }
    bytes.truncate(LENGTH_MAX);
}

#[test]
fn the_corpus_and_its_mutations_break_no_reader() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 3, "{name} has {} files", corpus.len());
        for (file, bytes) in &corpus {
            run(name, file, target, bytes);
            // Every cut of it, too.
            for length in 0..bytes.len().min(LENGTH_MAX) {
                run(name, &format!("{file} cut to {length}"), target, &bytes[..length]);
            }
        }
        let mut rng = Seed::from_u64(1).fork(name).rng();
        for i in 0..MUTATIONS {
            let (file, bytes) = &corpus[rng.range(0..corpus.len() as u64) as usize];
            let mut bytes = bytes.clone();
            mutate(&mut bytes, &corpus, &mut rng);
            run(name, &format!("mutation {i} of {file}"), target, &bytes);
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target_and_every_target_to_a_binary() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut folders: Vec<String> = std::fs::read_dir(fuzz.join("corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut names = TARGETS.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(folders, names);
    for name in names {
        assert!(fuzz.join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name}");
    }
}
