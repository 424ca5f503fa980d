//! The tables `/proc/net/tcp` and `/proc/net/tcp6`: one line a socket, after a line of headings. What is no such
//! line is passed over.

use std::net::{IpAddr, SocketAddr};

/// The state of a socket that listens (`TCP_LISTEN` in Linux's `tcp_states.h`).
const LISTEN: &str = "0A";
/// Listeners taken off one table.
const LISTENERS_MAX: usize = 65_536;

/// A socket that listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listener {
    /// Where.
    pub(super) address: SocketAddr,
    /// Its number, by which its holders are found.
    pub(super) inode: u64,
}

/// The sockets of a table that listen.
pub(super) fn listeners(table: &str) -> Vec<Listener> {
    table.lines().filter_map(listener).take(LISTENERS_MAX).collect()
}

/// `sl: local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`
fn listener(line: &str) -> Option<Listener> {
    let mut words = line.split_ascii_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let inode = words.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some(())?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port > 0)?;
    Some(Listener { address: SocketAddr::new(address(ip)?, port), inode })
}

/// An address as the kernel prints it: each four of its bytes as a number of this machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at..at + 8).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => word(0).map(IpAddr::from),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(8 * at)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

/// The number in `socket:[12345]`, to which a descriptor of a socket points.
pub(super) fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As a little-endian machine prints them.
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 815 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 \
00:00000000 00000000     0        0 99 1 0 100 0 0 10 0
   1: B80D0120000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 \
00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_that_listen_are_read_and_no_others() {
        let found = [listeners(TCP), listeners(TCP6)].concat();
        let listener = |address: &str, inode| Listener { address: address.parse().unwrap(), inode };
        assert_eq!(
            found,
            [
                listener("127.0.0.1:8080", 4711),
                listener("0.0.0.0:22", 815),
                listener("[::1]:3306", 99),
                listener("[2001:db8::1]:80", 100)
            ]
        );
    }

    #[test]
    fn descriptors_of_sockets_are_told_from_others() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for other in ["pipe:[4711]", "socket:[]", "socket:[-1]", "socket:[1", "/dev/null", ""] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }

    /// A line as the kernel prints one.
    fn line(address: SocketAddr, state: &str, inode: u64) -> String {
        let hex = |bytes: &[u8]| {
            let word = |four: &[u8]| format!("{:08X}", u32::from_ne_bytes(four.try_into().unwrap()));
            bytes.chunks(4).map(word).collect::<String>()
        };
        let ip = match address.ip() {
            IpAddr::V4(ip) => hex(&ip.octets()),
            IpAddr::V6(ip) => hex(&ip.octets()),
        };
        let port = address.port();
        format!("  12: {ip}:{port:04X} {ip}:0000 {state} 0:0 00:0 0  1000        0 {inode} 1 0 100 0 0 10 0")
    }

    proptest! {
        #[test]
        fn every_address_reads_as_it_was_printed(v6: bool, bits: u128, port in 1..=u16::MAX, inode: u64) {
            let ip = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
            let address = SocketAddr::new(ip, port);
            let text = [line(address, "0A", inode), line(address, "01", inode)].join("\n");
            prop_assert_eq!(listeners(&text), [Listener { address, inode }]);
        }

        #[test]
        fn hostile_text_is_passed_over(
            text in "\\PC*",
            lines in proptest::collection::vec("[0-9A-Fa-fé: \\-]{0,120}", 0..8),
        ) {
            let whole = line("10.0.0.1:80".parse().unwrap(), "0A", 7);
            let all = format!("{text}\n{}\n{whole}\n", lines.join("\n"));
            let found = listeners(&all);
            let known = Listener { address: "10.0.0.1:80".parse().unwrap(), inode: 7 };
            prop_assert!(found.contains(&known));
            prop_assert!(found.len() <= 1 + all.lines().count());
            let _ = socket_inode(&text);
        }

        #[test]
        fn a_line_cut_anywhere_never_panics(at in 0usize..160) {
            let whole = line("[::1]:80".parse().unwrap(), "0A", 7);
            let cut: String = whole.chars().take(at).collect();
            let _ = listeners(&cut);
        }
    }
}
