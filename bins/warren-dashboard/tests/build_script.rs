//! What the build script does on machines that have npm, have none, or bring a dashboard of their own: the script itself,
//! compiled and run as cargo would.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What it told cargo, and the table that it wrote.
struct Run {
    told: String,
    table: String,
}

impl Run {
    fn errors(&self) -> bool {
        self.told.lines().any(|line| line.starts_with("cargo::error="))
    }
}

fn script() -> &'static Path {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let script =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("build-script-{}", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status =
            Command::new(rustc).args(["--edition", "2024", "-o"]).arg(&script).arg(source).status().unwrap();
        assert!(status.success());
        script
    })
}

/// Runs it where no program is found, and so no npm.
fn run(name: &str, environment: &[(&str, &str)]) -> Run {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("out-{name}"));
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).unwrap();
    let mut script = Command::new(script());
    script.env_clear().env("PATH", &out).env("OUT_DIR", &out).env("PROFILE", "debug");
    script.env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")).envs(environment.iter().copied());
    let output = script.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    Run { told, table: fs::read_to_string(out.join("assets.rs")).unwrap_or_default() }
}

#[test]
fn without_npm_it_builds_and_a_page_says_how_to_build_the_dashboard() {
    let run = run("plain", &[]);
    assert!(!run.errors(), "{}", run.told);
    assert!(run.told.contains("cargo::warning=built without the dashboard"), "{}", run.told);
    assert!(run.table.contains("BUILT: bool = false"), "{}", run.table);
    let page =
        fs::read_to_string(Path::new(env!("CARGO_TARGET_TMPDIR")).join("out-plain/placeholder/index.html"));
    assert!(page.unwrap().contains("cargo build --workspace"));
}

#[test]
fn release_builds_and_ci_require_the_dashboard() {
    for (name, environment) in [
        ("release", &[("PROFILE", "release")][..]),
        ("ci", &[("CI", "true")]),
        ("required", &[("WARREN_DASHBOARD_REQUIRED", "1")]),
    ] {
        let run = run(name, environment);
        assert!(run.errors(), "{name}: {}", run.told);
        assert!(run.table.is_empty(), "{name}");
    }
    assert!(!run("release-without", &[("PROFILE", "release"), ("WARREN_DASHBOARD_REQUIRED", "0")]).errors());
}

#[test]
fn a_dashboard_that_was_built_before_is_taken_as_it_is() {
    let dist = Path::new(env!("CARGO_TARGET_TMPDIR")).join("built-before");
    fs::create_dir_all(dist.join("assets")).unwrap();
    fs::write(dist.join("index.html"), "<!doctype html>").unwrap();
    fs::write(dist.join("assets/a.js"), "1;").unwrap();
    fs::write(dist.join("assets/a.js.br"), "x").unwrap();
    let run = run("before", &[("WARREN_DASHBOARD_DIST", dist.to_str().unwrap()), ("CI", "true")]);
    assert!(!run.errors(), "{}", run.told);
    assert!(run.table.contains("BUILT: bool = true"));
    assert!(run.table.contains("path: \"assets/a.js\", media_type: \"text/javascript"));
    assert_eq!(run.table.matches("path:").count(), 2, "{}", run.table);
}
