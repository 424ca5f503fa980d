//! The TCP ports that programs of the workspace listen on, as Linux tells them in `/proc`.

mod proc_net;

use io_adapters::handle::TunnelStream;
use proc_net::Listener;
use proto_core::stream::ports::{ADDRESSES_MAX, NAME_MAX, PORTS_MAX, PROGRAMS_MAX, Port, Ports, Program};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, read_dir, read_link};
use std::io::{self, Read};
use tokio::io::AsyncWriteExt;

/// Bytes read of one table: a line has 150, so this is a hundred thousand connections.
const TABLE_MAX: u64 = 16 << 20;
/// Files of processes looked at for sockets: what a look may cost in a workspace with very many.
const FILES_MAX: usize = 200_000;

/// Answers once.
pub(crate) async fn serve(mut stream: TunnelStream) -> io::Result<()> {
    let ports = tokio::task::spawn_blocking(listening).await.map_err(io::Error::other)?;
    stream.write_all(&serde_json::to_vec(&ports)?).await?;
    stream.shutdown().await
}

/// What listens now, without this agent's own.
fn listening() -> Ports {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(table);
    let listeners = match tables {
        [Err(error), Err(_)] => {
            let problem = Some(format!("the workspace's system does not tell its ports: {error}"));
            return Ports { problem, ..Ports::default() };
        }
        tables => tables.into_iter().flatten().flat_map(|text| proc_net::listeners(&text)).collect(),
    };
    by_port(listeners, &sockets())
}

fn table(path: &str) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(TABLE_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The ports of these listeners with the programs that hold their sockets, without what this process holds.
fn by_port(listeners: Vec<Listener>, sockets: &BTreeMap<u64, BTreeSet<Program>>) -> Ports {
    let own = std::process::id();
    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    for listener in listeners {
        let holders = sockets.get(&listener.inode);
        if holders.is_some_and(|all| all.iter().any(|program| program.pid == own)) {
            continue;
        }
        let (number, addresses, programs) = (listener.address.port(), Vec::new(), Vec::new());
        let port = ports.entry(number).or_insert(Port { port: number, addresses, programs });
        let address = listener.address.ip();
        if port.addresses.len() < ADDRESSES_MAX && !port.addresses.contains(&address) {
            port.addresses.push(address);
        }
        for program in holders.into_iter().flatten() {
            if port.programs.len() < PROGRAMS_MAX && !port.programs.contains(program) {
                port.programs.push(program.clone());
            }
        }
    }
    let cut = ports.len() > PORTS_MAX;
    Ports { ports: ports.into_values().take(PORTS_MAX).collect(), cut, problem: None }
}

/// The programs that hold each socket, by inode, as far as this user may see: all of them as root, else its own.
fn sockets() -> BTreeMap<u64, BTreeSet<Program>> {
    let mut found: BTreeMap<u64, BTreeSet<Program>> = BTreeMap::new();
    let mut looked = 0;
    for process in read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mut name = None;
        for file in read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            looked += 1;
            if looked > FILES_MAX {
                return found;
            }
            let Ok(target) = read_link(file.path()) else { continue };
            let Some(inode) = target.to_str().and_then(proc_net::socket_inode) else { continue };
            let name = name.get_or_insert_with(|| name_of(&process.path().join("comm")));
            found.entry(inode).or_default().insert(Program { pid, name: name.clone() });
        }
    }
    found
}

/// A process's name. It may have put anything there: what would confuse a terminal is left out.
fn name_of(comm: &std::path::Path) -> String {
    let bytes = std::fs::read(comm).unwrap_or_default();
    String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, inode: u64) -> Listener {
        Listener { address: address.parse().unwrap(), inode }
    }

    #[test]
    fn ports_are_put_together_and_ours_left_out() {
        let program = |pid, name: &str| Program { pid, name: name.into() };
        let own = program(std::process::id(), "warren-agent");
        let sockets = BTreeMap::from([
            (1, BTreeSet::from([program(7, "postgres")])),
            (2, BTreeSet::from([program(7, "postgres"), program(8, "postgres")])),
            (3, BTreeSet::from([own])),
        ]);
        let listeners = vec![
            listener("127.0.0.1:5432", 1),
            listener("[::1]:5432", 2),
            listener("0.0.0.0:22", 3),
            listener("[::]:80", 4),
        ];
        let found = by_port(listeners, &sockets);
        let numbers: Vec<_> = found.ports.iter().map(|p| p.port).collect();
        assert_eq!(numbers, [80, 5432]);
        assert_eq!(found.ports[1].addresses.len(), 2);
        assert_eq!(found.ports[1].programs, [program(7, "postgres"), program(8, "postgres")]);
        assert!(found.ports[0].programs.is_empty(), "whose it is, this user may not see");
    }

    #[test]
    fn an_answer_is_bounded() {
        let many = (1..=60_000_u64).map(|port| listener(&format!("127.0.0.1:{port}"), port));
        let found = by_port(many.collect(), &BTreeMap::new());
        assert_eq!((found.ports.len(), found.cut), (PORTS_MAX, true));
        let same = (1..200).map(|n| listener(&format!("127.0.0.{n}:80"), n)).collect();
        let sockets =
            (1..200_u32).map(|n| (n.into(), BTreeSet::from([Program { pid: n, name: "x".into() }])));
        let found = by_port(same, &sockets.filter(|(n, _)| *n != u64::from(std::process::id())).collect());
        assert_eq!(found.ports[0].addresses.len(), ADDRESSES_MAX);
        assert_eq!(found.ports[0].programs.len(), PROGRAMS_MAX);
    }

    #[test]
    fn a_name_cannot_write_on_the_terminal() {
        let dir = std::env::temp_dir().join(format!("warren-comm-{}", std::process::id()));
        std::fs::write(&dir, b"a\x1b[31mb\xff\n").unwrap();
        let name = name_of(&dir);
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(name, "a[31mb\u{fffd}");
    }
}
