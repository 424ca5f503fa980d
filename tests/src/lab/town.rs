//! A town: one internet with a server in it, and any number of networks and hosts behind routers of all kinds.
//!
//! ```text
//!   server ── inet ──┬── router ── host
//!                    ├── carrier ──┬── router ── host
//!                    │             └── router ── host
//!                    └── host
//! ```

use super::{Lab, Nat, SERVER, SERVER_SECOND, require_root};
use crate::Result;
use std::collections::BTreeMap;

/// The internet's router, which translates nothing.
pub const INTERNET: &str = "inet";

/// A running town.
#[derive(Debug)]
pub struct Town {
    lab: Lab,
    /// How many networks there are.
    networks: u8,
    /// The address of a router or host on the network above it, and the link by which that one reaches it.
    up: BTreeMap<String, (String, String)>,
}

impl Town {
    /// One with a server alone.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`: with what to do.
    pub fn new() -> Result<Self> {
        require_root()?;
        let mut lab = Lab::empty();
        for host in [INTERNET, "server"] {
            lab.host(host)?;
        }
        lab.join((INTERNET, "203.0.113.1/24"), ("server", &format!("{SERVER}/24")))?;
        lab.ok("server", &["ip", "address", "add", &format!("{SERVER_SECOND}/24"), "dev", "eth0"])?;
        lab.ok("server", &["ip", "route", "add", "default", "via", "203.0.113.1"])?;
        lab.ok(INTERNET, &["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        Ok(Self { lab, networks: 0, up: BTreeMap::new() })
    }

    /// What it is made of.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A router below the internet or below another router. One that `turns` packets round lets hosts behind it meet at
    /// its outer address.
    ///
    /// # Errors
    /// If `ip` or `nft` refuse.
    pub fn router(&mut self, name: &str, above: &str, nat: Nat, turns: bool) -> Result {
        let outer = self.join(name, above, if above == INTERNET { "198.18" } else { "100.64" })?;
        self.lab.ok(name, &["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        self.lab.ok(name, &["nft", &nat.rules(&outer, turns)]).map(drop)
    }

    /// A host below the internet or a router.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn host(&mut self, name: &str, above: &str) -> Result {
        self.join(name, above, if above == INTERNET { "198.18" } else { "10.77" }).map(drop)
    }

    /// A host behind these routers, the nearest first. They are called as it is, and `-0`, `-1` after that.
    ///
    /// # Errors
    /// If `ip` or `nft` refuse.
    pub fn home(&mut self, name: &str, layers: &[Nat]) -> Result {
        let mut above = INTERNET.to_owned();
        for (n, nat) in layers.iter().enumerate().rev() {
            let router = format!("{name}-{n}");
            self.router(&router, &above, *nat, false)?;
            above = router;
        }
        self.host(name, &above)
    }

    /// The address of a router or host towards what is above it.
    #[must_use]
    pub fn outer(&self, name: &str) -> &str {
        self.up.get(name).map_or("", |(address, _)| address)
    }

    /// Gives a host and the router above it IPv6, without translation. The router lets in only what was asked for.
    ///
    /// # Errors
    /// If `ip` or `nft` refuse.
    pub fn give_ipv6(&mut self, host: &str, router: &str) -> Result {
        let link = |name: &str| self.up.get(name).map(|(_, link)| link.clone()).ok_or("no such host");
        let (outside, inside) = (link(router)?, link(host)?);
        let net = |n: u8| format!("2001:db8:0:{}", self.networks + n);
        let (far, near) = (net(1), net(2));
        self.networks += 2;
        let lab = &self.lab;
        for (on, address, link) in [
            (INTERNET, format!("{far}::1/64"), outside.as_str()),
            (router, format!("{far}::2/64"), "eth0"),
            (router, format!("{near}::1/64"), &inside),
            (host, format!("{near}::2/64"), "eth0"),
        ] {
            lab.ok(on, &["ip", "address", "add", &address, "dev", link, "nodad"])?;
        }
        lab.ok(router, &["ip", "-6", "route", "add", "default", "via", &format!("{far}::1")])?;
        lab.ok(host, &["ip", "-6", "route", "add", "default", "via", &format!("{near}::1")])?;
        lab.ok(
            INTERNET,
            &["ip", "-6", "route", "add", &format!("{near}::/64"), "via", &format!("{far}::2")],
        )?;
        for router in [INTERNET, router] {
            lab.ok(router, &["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])?;
        }
        let rules = "table ip6 lab {
            counter refused {}
            counter passed {}
            chain through {
                type filter hook forward priority filter
                iifname eth0 ct state new counter name refused drop
                meta l4proto udp counter name passed
            }
        }";
        lab.ok(router, &["nft", rules]).map(drop)
    }

    /// Lets no packets longer than that through to a router or host and back.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn narrow(&self, name: &str, above: &str, mtu: u32) -> Result {
        let (_, link) = self.up.get(name).ok_or("no such host")?;
        for (on, link) in [(above, link.as_str()), (name, "eth0")] {
            self.lab.ok(on, &["ip", "link", "set", link, "mtu", &mtu.to_string()])?;
        }
        Ok(())
    }

    /// How many packets a router has counted, by IP version.
    ///
    /// # Errors
    /// If nft prints no such counter.
    pub fn counted(&self, router: &str, family: &str, counter: &str) -> Result<u64> {
        self.counted_in(router, (family, "lab"), counter)
    }

    /// The same, of a table of the caller's.
    ///
    /// # Errors
    /// If nft prints no such counter.
    pub fn counted_in(&self, router: &str, (family, table): (&str, &str), counter: &str) -> Result<u64> {
        let text = self.lab.ok(router, &["nft", "list", "counter", family, table, counter])?;
        let mut words = text.split_whitespace().skip_while(|w| *w != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).ok_or_else(|| format!("no counter in {text}"))
    }

    /// A new host on a new network below another; its address.
    fn join(&mut self, name: &str, above: &str, network: &str) -> Result<String> {
        self.networks += 1;
        self.lab.host(name)?;
        let address = |host: u8| format!("{network}.{}.{host}", self.networks);
        let (gateway, own) = (address(1), address(2));
        let link = self.lab.free_link(above)?;
        self.lab.join((above, &format!("{gateway}/24")), (name, &format!("{own}/24")))?;
        self.lab.ok(name, &["ip", "route", "add", "default", "via", &gateway])?;
        self.up.insert(name.to_owned(), (own.clone(), link));
        Ok(own)
    }
}
