//! QUIC's crypto session without cryptography: packets are as they are, the handshake carries nothing but
//! transport parameters and a few words about the node.
//!
//! It is safe only behind WireGuard. Every datagram that reaches it has been opened by the tunnel's AEAD under
//! one peer's key, its inner source has been checked to be that peer's, and each peer has an endpoint of its
//! own, so that nothing here can be touched by anybody but the peer itself. Replays are the tunnel's business
//! too (its window and its fresh keys), which is what makes 0-RTT harmless.
//!
//! # The handshake
//!
//! Three messages, as TLS has them, since quinn-proto's packet spaces ask for that shape. Each is a type (1
//! byte), a length (2 bytes, big-endian) and a body:
//!
//! | type | from | space | body |
//! | --- | --- | --- | --- |
//! | 1 hello | client | Initial | [`Hello`], transport parameters |
//! | 2 seen | server | Initial | empty |
//! | 3 hello | server | Handshake | [`Hello`], transport parameters |
//! | 4 done | client | Handshake | empty |
//!
//! # The first datagram
//!
//! The client need not wait for the server's parameters: it assumes [`assumed_parameters`], lower bounds of
//! what every version of Warren announces, and sends at once in 0-RTT packets, which share the first datagram
//! with its hello. A server that announced less would be refused by quinn-proto as a protocol violation.

use bytes::{Bytes, BytesMut};
use core::net::Ipv6Addr;
use proto_core::seed::Seed;
use quinn_proto::crypto::{
    AeadKey, ClientConfig, CryptoError, ExportKeyingMaterialError, HandshakeTokenKey, HeaderKey, HmacKey,
    KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{
    ConnectError, ConnectionId, Side, TimeSource, TokenLog, TokenReuseError, TokenStore, TransportError,
    TransportErrorCode,
};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A private version number: this is not QUIC version 1, and nothing else shall take it for that.
pub(super) const VERSION: u32 = 0xff57_0002;

/// Streams that every version permits at first.
pub(super) const ASSUMED_STREAMS: u32 = 256;
/// Bytes of one stream that every version takes unread. No version may announce more than eight times as much:
/// quinn-proto gives a stream that began in 0-RTT no more than was assumed until the reader's first update,
/// which comes after an eighth of what was announced.
pub(super) const ASSUMED_STREAM_WINDOW: u32 = 16 << 20;
/// Bytes of all streams that every version takes unread.
pub(super) const ASSUMED_WINDOW: u32 = 64 << 20;
/// The longest datagram frame that every version takes.
pub(super) const ASSUMED_DATAGRAM: u32 = 1_200;

/// Bytes of handshake that are kept until a message is whole. A hello has about 150.
const INBOX_MAX: usize = 2_048;
const CLIENT_HELLO: u8 = 1;
const SERVER_SEEN: u8 = 2;
const SERVER_HELLO: u8 = 3;
const CLIENT_DONE: u8 = 4;

/// What a node says of itself in its hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    /// The node's process.
    pub(super) boot_id: u64,
    /// What the node's sockets keep unread, in bytes (`SO_RCVBUF` as obtained); 0 if it does not know.
    pub(super) receive_buffer: u32,
}

impl Hello {
    fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.boot_id.to_be_bytes());
        out.extend_from_slice(&self.receive_buffer.to_be_bytes());
    }

    fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let (boot_id, rest) = body.split_first_chunk::<8>()?;
        let (receive_buffer, rest) = rest.split_first_chunk::<4>()?;
        let hello = Self {
            boot_id: u64::from_be_bytes(*boot_id),
            receive_buffer: u32::from_be_bytes(*receive_buffer),
        };
        Some((hello, rest))
    }
}

/// The parameters that a client assumes of any server: written out, since they may only be made by reading.
fn assumed_parameters() -> Result<TransportParameters, TransportError> {
    let mut bytes = Vec::new();
    for (id, value) in [
        (0x04, ASSUMED_WINDOW),        // initial_max_data
        (0x05, ASSUMED_STREAM_WINDOW), // initial_max_stream_data_bidi_local
        (0x06, ASSUMED_STREAM_WINDOW), // initial_max_stream_data_bidi_remote
        (0x08, ASSUMED_STREAMS),       // initial_max_streams_bidi
        (0x20, ASSUMED_DATAGRAM),      // max_datagram_frame_size (RFC 9221)
    ] {
        // RFC 9000, 18: identifier, length and value, each a variable-length integer, here as short as can be.
        let value = if value < 1 << 14 {
            (0x4000 | value).to_be_bytes()[2..].to_vec()
        } else {
            (0x8000_0000 | value).to_be_bytes().to_vec()
        };
        bytes.extend_from_slice(&[id, value.len() as u8]);
        bytes.extend_from_slice(&value);
    }
    Ok(TransportParameters::read(Side::Client, &mut &bytes[..])?)
}

/// Both ends' crypto configuration.
#[derive(Clone, Debug)]
pub(super) struct Noop {
    pub(super) hello: Hello,
}

impl Noop {
    fn session(&self, side: Side, params: &TransportParameters) -> Box<dyn Session> {
        let mut body = Vec::with_capacity(192);
        self.hello.emit(&mut body);
        params.write(&mut body);
        let step = if side == Side::Client { Step::SendClientHello } else { Step::AwaitClientHello };
        Box::new(NoopSession { step, body, peer: None, inbox: Vec::new(), generation: 0 })
    }
}

impl ClientConfig for Noop {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(self.session(Side::Client, params))
    }
}

impl ServerConfig for Noop {
    fn initial_keys(&self, version: u32, _dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        if version == VERSION { Ok(keys()) } else { Err(UnsupportedVersion) }
    }

    fn retry_tag(&self, _version: u32, _orig_dst_cid: &ConnectionId, _packet: &[u8]) -> [u8; 16] {
        [0; 16]
    }

    fn start_session(self: Arc<Self>, _version: u32, params: &TransportParameters) -> Box<dyn Session> {
        self.session(Side::Server, params)
    }
}

/// Where the handshake is: what is sent or awaited next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    SendClientHello,
    AwaitSeen,
    TakeHandshakeKeys,
    AwaitServerHello,
    SendDone,
    AwaitClientHello,
    SendSeen,
    SendServerHello,
    AwaitDone,
    Done,
}

struct NoopSession {
    step: Step,
    /// Our hello's body.
    body: Vec<u8>,
    peer: Option<(Hello, TransportParameters)>,
    inbox: Vec<u8>,
    /// Of the keys made last.
    generation: u8,
}

impl NoopSession {
    fn is_client(&self) -> bool {
        use Step::{AwaitSeen, AwaitServerHello, SendClientHello, SendDone, TakeHandshakeKeys};
        matches!(self.step, SendClientHello | AwaitSeen | TakeHandshakeKeys | AwaitServerHello | SendDone)
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> Result<(), TransportError> {
        self.step = match (self.step, kind) {
            (Step::AwaitSeen, SERVER_SEEN) => Step::TakeHandshakeKeys,
            (Step::AwaitServerHello, SERVER_HELLO) => {
                self.learn(Side::Client, body)?;
                Step::SendDone
            }
            (Step::AwaitClientHello, CLIENT_HELLO) => {
                self.learn(Side::Server, body)?;
                Step::SendSeen
            }
            (Step::AwaitDone, CLIENT_DONE) => Step::Done,
            _ => return Err(violation("unexpected handshake message")),
        };
        Ok(())
    }

    fn learn(&mut self, side: Side, body: &[u8]) -> Result<(), TransportError> {
        let (hello, mut rest) = Hello::parse(body).ok_or_else(|| violation("hello is too short"))?;
        self.peer = Some((hello, TransportParameters::read(side, &mut rest)?));
        Ok(())
    }
}

impl Session for NoopSession {
    fn initial_keys(&self, _dst_cid: &ConnectionId, _side: Side) -> Keys {
        keys()
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// The peer's [`Hello`], once it has arrived.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.peer.map(|(hello, _)| Box::new(hello) as Box<dyn Any>)
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        Some((Box::new(FIRST), Box::new(FIRST)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        Some(true)
    }

    fn is_handshaking(&self) -> bool {
        self.step != Step::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        if self.inbox.len() + buf.len() > INBOX_MAX {
            return Err(violation("handshake is too long"));
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(buf);
        let mut rest = &inbox[..];
        while let [kind, high, low, after @ ..] = rest {
            let Some(body) = after.get(..usize::from(u16::from_be_bytes([*high, *low]))) else { break };
            self.message(*kind, body)?;
            rest = &after[body.len()..];
        }
        self.inbox = rest.to_vec();
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        match self.peer {
            Some((_, params)) => Ok(Some(params)),
            None if self.is_client() => assumed_parameters().map(Some),
            None => Ok(None),
        }
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let (next, kind, body, upgrade): (_, _, &[u8], _) = match self.step {
            Step::SendClientHello => (Step::AwaitSeen, Some(CLIENT_HELLO), &self.body, false),
            Step::TakeHandshakeKeys => (Step::AwaitServerHello, None, &[], true),
            Step::SendDone => (Step::Done, Some(CLIENT_DONE), &[], true),
            Step::SendSeen => (Step::SendServerHello, Some(SERVER_SEEN), &[], true),
            Step::SendServerHello => (Step::AwaitDone, Some(SERVER_HELLO), &self.body, true),
            Step::AwaitSeen
            | Step::AwaitServerHello
            | Step::AwaitClientHello
            | Step::AwaitDone
            | Step::Done => return None,
        };
        if let Some(kind) = kind {
            buf.push(kind);
            buf.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
            buf.extend_from_slice(body);
        }
        self.step = next;
        upgrade.then(keys)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        Some(KeyPair { local: Box::new(NoKey { generation }), remote: Box::new(NoKey { generation }) })
    }

    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn violation(reason: &str) -> TransportError {
    let mut error = TransportError::from(TransportErrorCode::PROTOCOL_VIOLATION);
    error.reason = reason.to_owned();
    error
}

fn keys() -> Keys {
    Keys {
        header: KeyPair { local: Box::new(FIRST), remote: Box::new(FIRST) },
        packet: KeyPair { local: Box::new(FIRST), remote: Box::new(FIRST) },
    }
}

/// The byte that stands for the AEAD's tag. There must be one: a packet that ends with a NEW_CONNECTION_ID frame
/// ends with a reset token, and would be taken for a stateless reset (RFC 9000, 10.3.1, which counts on the tag to
/// make the last bytes of an honest packet look random).
const TAG_LEN: usize = 1;

/// The tag of a packet, of the bytes of its number but the last and of its keys' generation, so that a packet that
/// is taken for another one is noticed, as the AEAD would in QUIC proper.
///
/// A packet carries only the end of its number and one bit of its generation. One that comes very late, such as a
/// copy through a slow relay, reads as one that has not been sent yet (RFC 9000, A.3) or as the first of new keys
/// (RFC 9001, 6.5), and either would end the connection. The weights differ and are odd, so that numbers which
/// differ by few times a power of 256 never have the same tag, nor do neighbouring generations.
fn tag(packet: u64, generation: u8) -> u8 {
    let [rest @ .., _] = packet.to_be_bytes();
    let weights = [1_u8, 3, 7, 13, 29, 61, 101];
    rest.iter()
        .rev()
        .zip(weights)
        .fold(generation.wrapping_mul(167), |sum, (byte, weight)| sum.wrapping_add(byte.wrapping_mul(weight)))
}

/// The key that hides nothing. The keys of a new phase are of the next generation.
struct NoKey {
    generation: u8,
}

/// The keys that a connection begins with.
const FIRST: NoKey = NoKey { generation: 0 };

impl HeaderKey for NoKey {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}
    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}
    fn sample_size(&self) -> usize {
        0
    }
}

impl PacketKey for NoKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], _header_len: usize) {
        if let Some(last) = buf.last_mut() {
            *last = tag(packet, self.generation);
        }
    }
    fn decrypt(&self, packet: u64, _header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let length = payload.len().checked_sub(TAG_LEN).ok_or(CryptoError)?;
        if payload.last() != Some(&tag(packet, self.generation)) {
            return Err(CryptoError);
        }
        payload.truncate(length);
        Ok(())
    }
    fn tag_len(&self) -> usize {
        TAG_LEN
    }
    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }
    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Makes the tokens by which an endpoint that lost a connection's state tells the peer so (RFC 9000, 10.3). The
/// seed belongs to the node's key, not to its process: a restarted node resets what its earlier life left.
pub(super) struct ResetKey(pub(super) Seed);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (to, from) in signature_out.iter_mut().zip(self.0.fork_bytes(data).bytes()) {
            *to = *from;
        }
    }
    fn signature_len(&self) -> usize {
        32
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if self.0.fork_bytes(data).bytes() == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// The token by which a client's address counts as validated from its first datagram on: the tunnel has done so.
/// Without it a server may answer three times what it has heard and then waits for the client, who, if all it
/// has in flight is 0-RTT, sets no timer: quinn-proto would hang.
///
/// The bytes are a validation token's as quinn-proto encodes them, unencrypted: kind, address, time of issue and
/// nonce.
pub(super) fn address_token(client: Ipv6Addr) -> Bytes {
    let mut token = vec![VALIDATION_TOKEN, 1];
    token.extend_from_slice(&client.octets());
    token.extend_from_slice(&[0; 8 + 16]);
    token.into()
}

const VALIDATION_TOKEN: u8 = 1;

/// Gives a client its own [`address_token`].
pub(super) struct OwnToken(pub(super) Bytes);

impl TokenStore for OwnToken {
    fn insert(&self, _server_name: &str, _token: Bytes) {}
    fn take(&self, _server_name: &str) -> Option<Bytes> {
        Some(self.0.clone())
    }
}

/// Takes [`address_token`]s, and no others.
pub(super) struct PlainTokens;

impl HandshakeTokenKey for PlainTokens {
    fn aead_from_hkdf(&self, _random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Self)
    }
}

impl AeadKey for PlainTokens {
    fn seal(&self, _data: &mut Vec<u8>, _additional_data: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }
    fn open<'a>(&self, data: &'a mut [u8], _additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        // Kind, address, time. The time must be ours: quinn-proto adds it to its epoch unchecked.
        let ours = data.first() == Some(&VALIDATION_TOKEN) && data.ends_with(&[0; 8]);
        if ours { Ok(data) } else { Err(CryptoError) }
    }
}

impl TokenLog for PlainTokens {
    fn check_and_insert(&self, _: u128, _: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        Ok(())
    }
}

/// Tokens do not age: their clock stands still.
impl TimeSource for PlainTokens {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_assumed_can_be_read_and_is_no_more_than_what_is_announced() {
        let assumed = format!("{:?}", assumed_parameters().unwrap());
        assert!(assumed.contains("initial_max_streams_bidi: 256"), "{assumed}");
        const { assert!(ASSUMED_STREAMS <= super::super::config::STREAMS_FIRST) };
        let window = super::super::config::STREAM_WINDOW;
        assert!((window / 8..=window).contains(&ASSUMED_STREAM_WINDOW));
        const { assert!(ASSUMED_WINDOW <= super::super::config::WINDOW) };
        assert!(ASSUMED_DATAGRAM as usize <= super::super::config::DATAGRAMS_WAITING);
    }

    #[test]
    fn the_handshake_takes_three_messages_and_carries_the_hellos() {
        let params = assumed_parameters().unwrap();
        let hello = |boot_id| Hello { boot_id, receive_buffer: 7 };
        let mut client = Noop { hello: hello(1) }.session(Side::Client, &params);
        let mut server = Noop { hello: hello(2) }.session(Side::Server, &params);
        let pass = |from: &mut Box<dyn Session>, to: &mut Box<dyn Session>| {
            let mut bytes = Vec::new();
            let keys = from.write_handshake(&mut bytes).is_some();
            // Bytes may come in any pieces.
            for byte in &bytes {
                to.read_handshake(&[*byte]).unwrap();
            }
            keys
        };
        assert!(!pass(&mut client, &mut server));
        assert!(pass(&mut server, &mut client) && client.write_handshake(&mut Vec::new()).is_some());
        assert!(pass(&mut server, &mut client));
        assert!(pass(&mut client, &mut server));
        assert!(!client.is_handshaking() && !server.is_handshaking());
        let seen = |s: &dyn Session| *s.peer_identity().unwrap().downcast::<Hello>().unwrap();
        assert_eq!((seen(&*client), seen(&*server)), (hello(2), hello(1)));
    }

    #[test]
    fn what_comes_too_late_to_be_read_rightly_is_not_opened() {
        for packet in [0, 1, 200, 255, 256, 0x7fff, 0xffff, 0x7f_ff01, 0xff_ffff, 0xffff_ffff, 1 << 40] {
            for power in [1_u64 << 8, 1 << 16, 1 << 24, 1 << 32] {
                for times in 1..=20 {
                    let other = packet + times * power;
                    assert_ne!(tag(packet, 0), tag(other, 0), "{packet} and {times} times {power}");
                }
            }
        }
        let mut bytes = [7_u8; 9];
        PacketKey::encrypt(&FIRST, 300, &mut bytes, 2);
        let open = |packet, generation| {
            PacketKey::decrypt(&NoKey { generation }, packet, &[], &mut BytesMut::from(&bytes[2..])).is_ok()
        };
        assert!(open(300, 0) && !open(300 + 256, 0) && !open(44, 0));
        assert!(!open(300, 1) && !open(300, 2), "keys of another phase");
    }

    proptest! {
        #[test]
        fn hostile_handshakes_are_refused_and_never_panic(
            server in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let side = if server { Side::Server } else { Side::Client };
            let noop = Noop { hello: Hello { boot_id: 1, receive_buffer: 0 } };
            let mut session = noop.session(side, &assumed_parameters().unwrap());
            let _ = session.write_handshake(&mut Vec::new());
            let _ = session.read_handshake(&bytes);
            let _ = session.transport_parameters();
        }
    }
}
