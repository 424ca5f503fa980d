//! How QUIC is set up inside a tunnel: windows, limits, identifiers, and nothing random that is not seeded.

use super::controller::{Factory, Steering};
use super::noop_crypto::{
    ASSUMED_DATAGRAM, Hello, Noop, OwnToken, PlainTokens, ResetKey, VERSION, address_token,
};
use core::net::Ipv6Addr;
use proto_core::seed::{Rng, Seed};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, InvalidCid, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest QUIC packet that is ever tried; beyond it there is nothing to gain, since from 8 KiB on the cipher
/// is at its full speed. Every path is searched by halving, from 1,200 bytes up to here, and this very number
/// makes the halves meet what common paths carry beside 80 bytes of WireGuard's and the inner headers and an
/// outer UDP over IPv6 or IPv4: 1,372 and 1,392 on Ethernet, 8,871 and 8,892 in jumbo frames. It costs 25 round
/// trips in the middle of which packets are as long as RFC 9000, 14 has them at first.
pub(crate) const PAYLOAD_MAX: u16 = 12_331;
/// Streams that a peer may have open to us at first, and at most: quinn-proto keeps 43 bytes for each permitted
/// one, used or not, so the permission grows with use.
pub(super) const STREAMS_FIRST: u32 = 256;
/// See [`STREAMS_FIRST`].
pub(super) const STREAMS_MAX: u32 = 1_024;
/// Bytes of one stream that we take unread: a gigabit over 130 ms.
pub(super) const STREAM_WINDOW: u32 = 16 << 20;
/// Bytes of all streams of a peer that we take unread: many streams', so that those nobody reads do not hold up
/// the others, and the bound of what a peer can make us hold.
pub(super) const WINDOW: u32 = 256 << 20;
/// Bytes of datagrams that wait for the application, and for the network.
pub(super) const DATAGRAMS_WAITING: usize = 256 << 10;
/// The round-trip time that is assumed before one is measured: between a relay's and the far end of the world's.
const INITIAL_RTT: Duration = Duration::from_millis(200);
/// Bytes of our connection IDs. They tell apart the connections of one peer alone, of which there are few.
const CID_LEN: usize = 4;
/// Bytes of the connection ID that a client gives a server for its first flight (RFC 9000, 7.2: at least 8).
const FIRST_CID_LEN: usize = 8;

/// What all connections of a node have in common.
#[derive(Clone)]
pub(crate) struct QuicConfig {
    hello: Hello,
    reset: Seed,
}

impl QuicConfig {
    /// `secret` belongs to the node's key: what is derived from it lets a restarted node tell its peers that
    /// their connections are gone.
    pub(crate) fn new(boot_id: u64, receive_buffer: usize, secret: &Seed) -> Self {
        let mut config =
            Self { hello: Hello { boot_id, receive_buffer: 0 }, reset: secret.fork("quic reset") };
        config.set_receive_buffer(receive_buffer);
        config
    }

    pub(crate) fn set_receive_buffer(&mut self, bytes: usize) {
        self.hello.receive_buffer = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// An endpoint's configuration, with everything that it draws drawn from `seed`.
    pub(super) fn endpoint(&self, seed: &Seed) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(ResetKey(self.reset.clone())));
        let cids = seed.fork("cids");
        config
            .cid_generator(move || Box::new(SeededCids(cids.rng())))
            .supported_versions(vec![VERSION])
            .grease_quic_bit(false)
            .rng_seed(Some(*seed.fork("endpoint").bytes()));
        // The value is within the bounds that the call checks, 1,200 to 65,527.
        let _ = config.max_udp_payload_size(PAYLOAD_MAX);
        config
    }

    /// For a connection from `us`, our address inside the tunnel.
    pub(super) fn client(
        &self,
        us: Ipv6Addr,
        steering: &Arc<Steering>,
        first_cids: &Arc<Mutex<Rng>>,
    ) -> ClientConfig {
        let mut config = ClientConfig::new(Arc::new(Noop { hello: self.hello }));
        let cids = first_cids.clone();
        config
            .transport_config(Arc::new(transport(steering)))
            .token_store(Arc::new(OwnToken(address_token(us))))
            .version(VERSION)
            .initial_dst_cid_provider(Arc::new(move || {
                let mut rng = cids.lock().unwrap_or_else(PoisonError::into_inner);
                ConnectionId::new(&rng.bytes::<FIRST_CID_LEN>())
            }));
        config
    }

    pub(super) fn server(&self, steering: &Arc<Steering>) -> ServerConfig {
        let mut config = ServerConfig::new(Arc::new(Noop { hello: self.hello }), Arc::new(PlainTokens));
        let mut tokens = ValidationTokenConfig::default();
        tokens.log(Arc::new(PlainTokens)).sent(0);
        config
            .transport_config(Arc::new(transport(steering)))
            .validation_token_config(tokens)
            .time_source(Arc::new(PlainTokens))
            .migration(false)
            .max_incoming(1)
            .incoming_buffer_size(1 << 16)
            .incoming_buffer_size_total(1 << 16);
        config
    }
}

fn transport(steering: &Arc<Steering>) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(PAYLOAD_MAX);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_FIRST))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // Whether a peer lives is the tunnel's business, and a tunnel outlives any outage.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .allow_spin(false)
        .datagram_receive_buffer_size(Some(DATAGRAMS_WAITING.max(ASSUMED_DATAGRAM as usize)))
        .datagram_send_buffer_size(DATAGRAMS_WAITING)
        .congestion_controller_factory(Arc::new(Factory { steering: steering.clone() }));
    config
}

/// Connection IDs from a seed; quinn-proto's own generators ask the operating system.
struct SeededCids(Rng);

impl ConnectionIdGenerator for SeededCids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.bytes::<CID_LEN>())
    }
    fn validate(&self, _cid: &ConnectionId) -> Result<(), InvalidCid> {
        Ok(())
    }
    fn cid_len(&self) -> usize {
        CID_LEN
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
