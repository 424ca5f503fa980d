//! Builds the dashboard with npm, in cargo's own folder, and writes a table of its files for the library to embed.
//!
//! Nothing is written into the source tree. Without npm the table has one page, which says how to build the
//! dashboard; where that will not do (release builds, CI) the build fails instead.
//!
//! | variable | what it does |
//! | --- | --- |
//! | `WARREN_DASHBOARD_DIST` | embeds this folder, built before, and starts no npm |
//! | `WARREN_DASHBOARD_REQUIRED` | `1`: fail without the dashboard, `0`: make do without it; else release builds and `CI` require it |

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// What the dashboard is made of, under `web/`; `node_modules` of a developer is not.
const SOURCES: &[&str] = &[
    "build",
    "index.html",
    "package-lock.json",
    "package.json",
    "public",
    "src",
    "tsconfig.json",
    "vite.config.ts",
];

/// What Vite needs.
const NODE_MIN: (u32, u32) = (20, 19);

/// Lines of npm's complaint that are shown.
const LINES_SHOWN: usize = 12;

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed=web/{source}");
    }
    for source in ["build.rs", "guide", "src/placeholder.html"] {
        println!("cargo::rerun-if-changed={source}");
    }
    for variable in ["CI", "WARREN_DASHBOARD_DIST", "WARREN_DASHBOARD_REQUIRED"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let built = match env::var_os("WARREN_DASHBOARD_DIST") {
        Some(folder) => ready_made(Path::new(&folder)),
        None => build(&here, &out.join("dashboard")),
    };
    let table = match built {
        Ok(dist) => table(&dist, true),
        Err(why) if required() => {
            fail(&format!("the dashboard could not be built: {why}"));
            fail("install Node.js 20.19 or newer with npm, or set WARREN_DASHBOARD_DIST to a built one");
            return;
        }
        Err(why) => {
            let first = why.lines().next().unwrap_or_default();
            println!("cargo::warning=built without the dashboard: {first}");
            println!("cargo::warning=the server shows a page that says how to build it");
            placeholder(&here, &out).and_then(|dist| table(&dist, false))
        }
    };
    let written = table.and_then(|text| fs::write(out.join("assets.rs"), text).map_err(|e| e.to_string()));
    if let Err(why) = written {
        fail(&format!("the dashboard's files could not be listed: {why}"));
    }
}

/// Tells cargo, which then fails.
fn fail(why: &str) {
    for line in why.lines() {
        println!("cargo::error={line}");
    }
}

fn required() -> bool {
    match env::var("WARREN_DASHBOARD_REQUIRED").as_deref() {
        Ok("1") => true,
        Ok("0") => false,
        _ => {
            env::var("PROFILE").as_deref() == Ok("release")
                || env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false")
        }
    }
}

fn ready_made(folder: &Path) -> Result<PathBuf, String> {
    let index = folder.join("index.html");
    println!("cargo::rerun-if-changed={}", folder.display());
    if index.is_file() { Ok(folder.to_path_buf()) } else { Err(format!("there is no {}", index.display())) }
}

/// Builds in `work`, where the packages of an earlier build are used again if the lock file is the same.
fn build(here: &Path, work: &Path) -> Result<PathBuf, String> {
    let io = |error: io::Error| format!("{}: {error}", work.display());
    let (web, lock) = (work.join("web"), work.join("installed-lock.json"));
    fs::create_dir_all(&web).map_err(io)?;
    for source in SOURCES {
        replace(&here.join("web").join(source), &web.join(source)).map_err(io)?;
    }
    replace(&here.join("guide"), &work.join("guide")).map_err(io)?;
    new_enough()?;
    let wanted = fs::read(web.join("package-lock.json")).map_err(io)?;
    if fs::read(&lock).ok().as_ref() != Some(&wanted) {
        // A stopped installation must not pass for a whole one.
        let _ = fs::remove_file(&lock);
        npm(&web, &["ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"])?;
        fs::write(&lock, &wanted).map_err(io)?;
    }
    // A build that fails must not leave an older one that looks like its own.
    let dist = web.join("dist");
    match fs::remove_dir_all(&dist) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {
            if required() {
                npm(&web, &["run", "check"])?;
            }
            npm(&web, &["run", "build"])?;
        }
    }
    complete(dist)
}

fn complete(dist: PathBuf) -> Result<PathBuf, String> {
    if dist.join("index.html").is_file() { Ok(dist) } else { Err("npm built no index.html".to_owned()) }
}

/// Says what is wrong with an old Node.js, which else fails with a riddle.
fn new_enough() -> Result<(), String> {
    let output = Command::new("node").arg("--version").output();
    let output = output.map_err(|error| format!("node cannot be started ({error})"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = version.trim_start_matches('v').split('.').map(|number| number.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= NODE_MIN {
        return Ok(());
    }
    Err(format!("Node.js {version} is older than {}.{}", NODE_MIN.0, NODE_MIN.1))
}

fn npm(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let program = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let mut npm = Command::new(program);
    npm.args(arguments).current_dir(folder).env("npm_config_update_notifier", "false");
    let output = npm.output().map_err(|error| format!("npm cannot be started ({error})"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(LINES_SHOWN).collect();
    Err(format!("`npm {}` failed ({}):\n{}", arguments.join(" "), output.status, lines.join("\n")))
}

/// Makes `to` what `from` is: files that are there no more go.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        fs::remove_dir_all(to)?;
    }
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            replace(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if from.is_file() {
        fs::copy(from, to)?;
    }
    Ok(())
}

fn placeholder(here: &Path, out: &Path) -> Result<PathBuf, String> {
    let dist = out.join("placeholder");
    let copied = fs::create_dir_all(&dist)
        .and_then(|()| fs::copy(here.join("src/placeholder.html"), dist.join("index.html")));
    copied.map(|_| dist).map_err(|error| error.to_string())
}

/// The source of a sorted table of all files, each with what it is and its compressed forms beside it.
fn table(dist: &Path, built: bool) -> Result<String, String> {
    let mut files = Vec::new();
    list(dist, dist, &mut files).map_err(|error| format!("{}: {error}", dist.display()))?;
    files.sort();
    let mut text = format!("pub(super) const BUILT: bool = {built};\nstatic ASSETS: &[Asset] = &[\n");
    for path in files.iter().filter(|path| !path.ends_with(".br") && !path.ends_with(".gz")) {
        let whole = dist.join(path);
        let bytes = fs::read(&whole).map_err(|error| format!("{}: {error}", whole.display()))?;
        let form = |ending: &str| {
            let name = format!("{path}.{ending}");
            if files.contains(&name) {
                format!("Some(include_bytes!({:?}))", dist.join(name))
            } else {
                "None".to_owned()
            }
        };
        let _ = writeln!(
            text,
            "Asset {{ path: {path:?}, media_type: {:?}, hash: {:?}, bytes: include_bytes!({whole:?}), brotli: {}, gzip: {} }},",
            media_type(path),
            hash(&bytes),
            form("br"),
            form("gz"),
        );
    }
    text.push_str("];\n");
    Ok(text)
}

fn list(root: &Path, folder: &Path, into: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, into)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            into.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "webmanifest") => "application/json",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// FNV-1a over 64 bits: tells one build's file from another's, which is all that an entity tag is for.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
