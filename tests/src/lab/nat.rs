//! What a router of the lab does, as nft rules.

/// What a site's router does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// Masquerade, and whatever else comes by UDP to a port in use goes inside, whoever sent it: full cone
    /// (RFC 4787: endpoint-independent mapping and filtering).
    FullCone,
    /// The same for those alone whose address that port has sent to (address-dependent filtering).
    AddressRestricted,
    /// Plain masquerade and a drop of new packets to the router itself: port-restricted (endpoint-independent
    /// mapping, address-and-port-dependent filtering).
    PortRestricted,
    /// Masquerade with fully random ports: symmetric.
    Symmetric,
    /// The same from a block of 1,024 ports, as carriers give their customers.
    SymmetricBlock,
    /// Masquerade, and no UDP at all.
    UdpBlocked,
}

impl Nat {
    /// Its rules. The wide-area side is the router's first link, eth0, with the address `outer`; hosts behind its others
    /// do not see one another. If it `turns` packets round, those from inside to `outer` come back inside from there.
    pub(super) fn rules(self, outer: &str, turns: bool) -> String {
        let how = match self {
            Self::Symmetric => "masquerade fully-random",
            Self::SymmetricBlock => {
                "meta l4proto udp masquerade to :20480-21503 fully-random
                    oifname eth0 masquerade"
            }
            _ => "masquerade",
        };
        let into = match self {
            Self::FullCone => "iifname eth0 meta l4proto udp dnat to udp dport map @inside",
            Self::AddressRestricted => {
                "iifname eth0 ip saddr . udp dport @spoken dnat to udp dport map @inside"
            }
            _ => "",
        };
        let block = match self {
            Self::UdpBlocked => "meta l4proto udp counter name blocked drop",
            _ => "",
        };
        let (turn, back) = if turns {
            (
                format!(
                    "iifname != eth0 ip daddr {outer} meta l4proto udp counter name turned dnat to udp dport map @inside"
                ),
                format!("oifname != eth0 iifname != eth0 ct status dnat meta l4proto udp snat to {outer}"),
            )
        } else {
            Default::default()
        };
        format!(
            "table ip lab {{
                counter translated {{}}
                counter refused {{}}
                counter blocked {{}}
                counter turned {{}}
                counter unturned {{}}
                set spoken {{
                    type ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 65535
                }}
                map inside {{
                    type inet_service : ipv4_addr; flags dynamic,timeout; timeout 2m; size 65535
                }}
                chain seen {{
                    type filter hook postrouting priority srcnat - 1
                    oifname eth0 meta l4proto udp update @spoken {{ ip daddr . udp sport }}
                    oifname eth0 meta l4proto udp update @inside {{ udp sport : ip saddr }}
                }}
                chain out {{
                    type nat hook postrouting priority srcnat
                    oifname eth0 counter name translated
                    oifname eth0 {how}
                    {back}
                }}
                chain into {{
                    type nat hook prerouting priority dstnat
                    {into}
                    {turn}
                }}
                chain through {{
                    type filter hook forward priority filter
                    {block}
                    iifname != eth0 oifname != eth0 ct status dnat accept
                    iifname != eth0 oifname != eth0 drop
                }}
                chain own {{
                    type filter hook input priority filter
                    iifname eth0 ct state new counter name refused drop
                    iifname != eth0 ip daddr {outer} meta l4proto udp counter name unturned drop
                }}
            }}"
        )
    }
}
