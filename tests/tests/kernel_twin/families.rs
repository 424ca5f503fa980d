//! IPv6, through firewalls that let in only what was asked for, where IPv4 leads nowhere.

use crate::twin::{Twin, text};
use tests::Result;
use tests::lab::{Nat, Town};

fn meets_by_ipv6(alice: Nat, bob: Nat) -> Result {
    let mut town = Town::new()?;
    town.home("alice", &[alice])?;
    town.home("bob", &[bob])?;
    town.give_ipv6("alice", "alice-0")?;
    town.give_ipv6("bob", "bob-0")?;
    let twin = Twin::start(&town, &["bob"])?;
    let report = twin.deployment.json_on("alice", &["ping", "bob", "--until-direct", "--timeout", "30"])?;
    assert!(text(&report["path"]).contains("[2001:db8:"), "{report:#}");
    let speed = twin.deployment.json_on("alice", &["speedtest", "bob", "--direct", "--time", "1"])?;
    assert!(text(&speed["path"]).contains("[2001:db8:"), "{speed:#}");
    for router in ["alice-0", "bob-0"] {
        // A stranger's packet, so that a firewall is known to be there.
        let host = router.trim_end_matches("-0");
        let inside = town.lab().ok(host, &["ip", "-6", "-o", "address", "show", "scope", "global"])?;
        let address =
            inside.split_whitespace().find_map(|word| word.strip_suffix("/64")).ok_or("no address")?;
        let stranger =
            format!("import socket as s; s.socket(s.AF_INET6, s.SOCK_DGRAM).sendto(b'', ('{address}', 9))");
        town.lab().ok("inet", &["python3", "-c", &stranger])?;
        assert!(town.counted(router, "ip6", "refused")? > 0, "{router} lets everybody in");
        assert!(town.counted(router, "ip6", "passed")? > 100, "{router} was not in the way");
    }
    Ok(())
}

#[test]
fn two_symmetric_nats_do_not_matter_where_there_is_ipv6() -> Result {
    meets_by_ipv6(Nat::Symmetric, Nat::Symmetric)
}
