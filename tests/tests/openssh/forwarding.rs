//! Connections carried beside a session: ports and Unix sockets both ways, any port by SOCKS, and the SSH agent.

use super::Result;
use super::workspace::{Ends, PATIENCE, Workspace, wait};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

/// Bytes of a long way there and back.
const LONG: usize = 8 << 20;

/// Sends everything back to all who come, and ends when they have.
fn echo() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            std::thread::spawn(move || {
                std::io::copy(&mut &visitor, &mut &visitor)?;
                visitor.shutdown(Shutdown::Write)
            });
        }
    });
    Ok(port)
}

fn echo_socket(path: &Path) -> Result {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            std::thread::spawn(move || {
                std::io::copy(&mut &visitor, &mut &visitor)?;
                visitor.shutdown(Shutdown::Write)
            });
        }
    });
    Ok(())
}

/// There and back, half-closed in between.
fn round_trip<S>(stream: &S, end: impl Fn(&S) -> std::io::Result<()> + Sync, bytes: &[u8]) -> Result<Vec<u8>>
where
    S: Sync,
    for<'a> &'a S: Read + Write,
{
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = stream;
            to.write_all(bytes).and_then(|()| end(stream))
        });
        let mut from = stream;
        from.read_to_end(&mut back)
    })?;
    Ok(back)
}

fn by_port(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    round_trip(&stream, |stream| stream.shutdown(Shutdown::Write), bytes)
}

fn by_socket(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    round_trip(&stream, |stream| stream.shutdown(Shutdown::Write), bytes)
}

/// A connection that others share, by its control socket.
fn master(workspace: &Workspace) -> Result<(Ends, String)> {
    let path = workspace.path("control");
    let control = format!("ControlPath={}", path.display());
    let ssh = workspace.program("ssh").args(["-M", "-N", "-o", &control, "dev"]).spawn()?;
    let ssh = Ends(ssh);
    wait("the shared connection", || {
        let out = workspace.ssh(&["-O", "check", "-o", &control, "dev"]).ok()?;
        out.status.success().then_some(())
    })?;
    Ok((ssh, control))
}

/// Asks for a forwarding, or ends one; what was said about it.
fn ask(workspace: &Workspace, control: &str, what: &str, arguments: &[&str]) -> Result<String> {
    let out = workspace.ssh(&[&["-O", what, "-o", control], arguments, &["dev"]].concat())?;
    assert!(out.status.success(), "{what} {arguments:?}: {out:?}");
    Ok(String::from_utf8(out.stdout)?)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[test]
fn ports_lead_both_ways() -> Result {
    let workspace = Workspace::start()?;
    let (_ssh, control) = master(&workspace)?;
    let echo = echo()?;
    let long: Vec<u8> = (0..LONG).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();

    let local = free_port()?;
    ask(&workspace, &control, "forward", &["-L", &format!("{local}:localhost:{echo}")])?;
    assert!(by_port(local, &long)? == long, "by -L");

    let remote: u16 =
        ask(&workspace, &control, "forward", &["-R", &format!("0:localhost:{echo}")])?.trim().parse()?;
    assert!(by_port(remote, &long)? == long, "by -R");
    // Both loopbacks of the workspace, and no other address of it.
    assert_eq!(
        round_trip(&TcpStream::connect(("::1", remote))?, |s| s.shutdown(Shutdown::Write), b"six")?,
        b"six"
    );
    let fixed = free_port()?;
    let spec = format!("{fixed}:localhost:{echo}");
    ask(&workspace, &control, "forward", &["-R", &spec])?;
    assert_eq!(by_port(fixed, b"fixed")?, b"fixed");
    let taken =
        workspace.ssh(&["-O", "forward", "-o", &control, "-R", &format!("{echo}:localhost:1"), "dev"])?;
    assert!(!taken.status.success(), "a port that is taken was given: {taken:?}");
    ask(&workspace, &control, "cancel", &["-R", &spec])?;
    wait("the end of the listening", || TcpStream::connect(("127.0.0.1", fixed)).is_err().then_some(()))?;

    let socks = free_port()?;
    ask(&workspace, &control, "forward", &["-D", &socks.to_string()])?;
    let mut stream = TcpStream::connect(("127.0.0.1", socks))?;
    stream.write_all(b"\x05\x01\x00\x05\x01\x00\x03\x09localhost")?;
    stream.write_all(&echo.to_be_bytes())?;
    stream.read_exact(&mut [0; 12])?;
    assert_eq!(round_trip(&stream, |stream| stream.shutdown(Shutdown::Write), b"by socks")?, b"by socks");
    Ok(())
}

#[test]
fn a_port_where_nobody_listens_is_refused() -> Result {
    let workspace = Workspace::start()?;
    let (_ssh, control) = master(&workspace)?;
    let (local, nobody) = (free_port()?, free_port()?);
    ask(&workspace, &control, "forward", &["-L", &format!("{local}:127.0.0.1:{nobody}")])?;
    let began = std::time::Instant::now();
    assert_eq!(by_port(local, b"").unwrap_or_default(), b"");
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    // The connection that it came by goes on.
    assert_eq!(workspace.ssh(&["-o", &control, "dev", "echo on"])?.stdout, b"on\n");
    Ok(())
}

#[test]
fn unix_sockets_lead_both_ways() -> Result {
    let workspace = Workspace::start()?;
    let (_ssh, control) = master(&workspace)?;
    let [theirs, here, there] = ["theirs", "here", "there"].map(|name| workspace.path(name));
    echo_socket(&theirs)?;
    ask(&workspace, &control, "forward", &["-L", &format!("{}:{}", here.display(), theirs.display())])?;
    assert_eq!(by_socket(&here, b"to the workspace")?, b"to the workspace");
    let spec = format!("{}:{}", there.display(), theirs.display());
    ask(&workspace, &control, "forward", &["-R", &spec])?;
    assert_eq!(std::fs::metadata(&there)?.mode() & 0o777, 0o600);
    assert_eq!(by_socket(&there, b"from the workspace")?, b"from the workspace");
    ask(&workspace, &control, "cancel", &["-R", &spec])?;
    wait("the end of the socket", || (!there.exists()).then_some(()))?;
    Ok(())
}

#[test]
fn the_keys_of_the_visitor_are_within_reach() -> Result {
    let workspace = Workspace::start()?;
    let socket = workspace.path("agent.socket");
    let mut agent = Command::new("ssh-agent");
    let _agent = Ends(agent.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null()).spawn()?);
    wait("the agent", || socket.exists().then_some(()))?;
    let key = workspace.path("id");
    assert!(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "of alice", "-f"])
            .arg(&key)
            .status()?
            .success()
    );
    let add = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status()?;
    assert!(add.success());
    let mut ssh = workspace.program("ssh");
    ssh.env("SSH_AUTH_SOCK", &socket);
    let script = "ssh-add -l; dirname $SSH_AUTH_SOCK; stat -c %a $(dirname $SSH_AUTH_SOCK)";
    let out = ssh.args(["-A", "dev", script]).output()?;
    let said = String::from_utf8(out.stdout)?;
    let [keys, folder, mode] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(keys.contains("of alice"), "{said}");
    assert_eq!(mode, "700");
    wait("the end of the socket", || (!Path::new(folder).exists()).then_some(()))?;
    // Only who asks for it has it.
    assert_eq!(workspace.says("echo \"<$SSH_AUTH_SOCK>\"")?, "<>\n");
    Ok(())
}
