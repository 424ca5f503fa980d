//! Names for what a NAT does (RFC 4787, section 4), from what STUN servers saw.

/// How the NAT before us maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mapping {
    /// Too few servers answered to tell.
    #[default]
    Unknown,
    /// No NAT: a server saw an address of our own.
    None,
    /// Endpoint-independent: different servers saw the same address and port.
    Independent,
    /// Different servers saw different addresses or ports (a "symmetric" NAT).
    Varies,
}
