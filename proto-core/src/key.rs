//! Keys: Curve25519 pairs for nodes (WireGuard and DERP) and for disco, and the NaCl boxes between them.

use crate::seed::{Rng, Seed};
use blake2::Blake2s256;
use blake2::digest::{FixedOutput, Update};
use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;
use crypto_secretbox::{AeadInPlace, KeyInit, XSalsa20Poly1305};
use salsa20::cipher::consts::U10;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use x25519_dalek::{PublicKey, StaticSecret};

mod map;

pub use map::{KeyHash, KeyHasher, KeyMap, KeyMarks};

/// Bytes of a NaCl box's nonce.
pub const NONCE_LEN: usize = 24;
/// Bytes that a NaCl box adds to its plaintext.
pub const TAG_LEN: usize = 16;

/// Why a key's text could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The prefix is another kind's or missing.
    #[error("the key does not begin with \"{0}\"")]
    Prefix(&'static str),
    /// Not 64 hexadecimal digits.
    #[error("the key is not 64 hexadecimal digits")]
    Digits,
}

macro_rules! key_pair {
    ($(#[$public_doc:meta])* $public:ident, $(#[$secret_doc:meta])* $secret:ident, $prefix:literal, $short:literal) => {
        $(#[$public_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $public(pub [u8; 32]);

        impl $public {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The key's 64 hexadecimal digits without a prefix.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }
        }

        impl fmt::Display for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), hex(&self.0))
            }
        }

        impl fmt::Debug for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, "{}"), &hex(&self.0)[..10])
            }
        }

        impl FromStr for $public {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                let digits = text.strip_prefix($prefix).ok_or(KeyError::Prefix($prefix))?;
                unhex(digits).map(Self).ok_or(KeyError::Digits)
            }
        }

        impl Serialize for $public {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $public {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }

        $(#[$secret_doc])*
        #[derive(Clone)]
        pub struct $secret(StaticSecret);

        impl $secret {
            /// The key of these bytes, clamped as RFC 7748 says.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(StaticSecret::from(clamp(bytes)))
            }

            /// A new key drawn from `seed`.
            #[must_use]
            pub fn generate(seed: &Seed) -> Self {
                Self::from_bytes(seed.fork($prefix).rng().bytes())
            }

            /// The key's bytes, for a file of mode 0600 or a WireGuard engine, never for a log.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; 32] {
                self.0.to_bytes()
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> $public {
                $public(PublicKey::from(&self.0).to_bytes())
            }

            /// The box between this key and `peer`'s.
            #[must_use]
            pub fn shared(&self, peer: &$public) -> SharedBox {
                SharedBox::of_agreed(self.0.diffie_hellman(&PublicKey::from(peer.0)).as_bytes())
            }
        }

        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($secret), "(of {:?})"), self.public())
            }
        }
    };
}

key_pair!(
    /// A node's public key: its WireGuard key and its name at a relay. A relay's own key has the same form.
    NodePublic,
    /// A node's secret key.
    NodeSecret,
    "nodekey:",
    "n:"
);
key_pair!(
    /// A node's disco public key, fresh at each start of the process.
    DiscoPublic,
    /// A node's disco secret key.
    DiscoSecret,
    "discokey:",
    "d:"
);

impl NodePublic {
    /// The node's address inside the tunnel: Warren's ULA prefix and 80 bits of the key's BLAKE2s hash.
    #[must_use]
    pub fn inner_address(&self) -> Ipv6Addr {
        let mut hash = Blake2s256::default();
        hash.update(b"warren inner address v1");
        hash.update(&self.0);
        let digest: [u8; 32] = hash.finalize_fixed().into();
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&INNER_PREFIX);
        octets[6..].copy_from_slice(&digest[..10]);
        Ipv6Addr::from(octets)
    }
}

/// The prefix of every inner address, a ULA /48 (RFC 4193) of Warren's own.
pub const INNER_PREFIX: [u8; 6] = [0xfd, 0x77, 0x61, 0x72, 0x72, 0x65];

/// A NaCl box (Curve25519, XSalsa20, Poly1305) between two keys, with the shared secret computed once.
pub struct SharedBox(XSalsa20Poly1305);

impl SharedBox {
    /// The box of two keys that agree on this secret (X25519, RFC 7748).
    #[must_use]
    pub fn of_agreed(secret: &[u8; 32]) -> Self {
        // NaCl's crypto_box_beforenm: the secret is hashed to a key, by 20 rounds of Salsa.
        Self(XSalsa20Poly1305::new(&salsa20::hsalsa::<U10>(secret.into(), &Default::default())))
    }

    /// `nonce ‖ tag ‖ ciphertext` of `plaintext` appended to `out`, with a nonce drawn from `rng`.
    pub fn seal(&self, plaintext: &[u8], rng: &mut Rng, out: &mut Vec<u8>) {
        self.seal_with(plaintext, rng.bytes(), out);
    }

    /// As [`SharedBox::seal`] with a nonce given, which must never repeat for these keys.
    pub fn seal_with(&self, plaintext: &[u8], nonce: [u8; NONCE_LEN], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&[0; TAG_LEN]);
        out.extend_from_slice(plaintext);
        let text = &mut out[start + NONCE_LEN + TAG_LEN..];
        // The cipher refuses only texts beyond its counter, 256 GiB; a tag of zeros would then never open.
        if let Ok(tag) = self.0.encrypt_in_place_detached(&nonce.into(), &[], text) {
            out[start + NONCE_LEN..start + NONCE_LEN + TAG_LEN].copy_from_slice(&tag);
        }
    }

    /// The plaintext of `nonce ‖ tag ‖ ciphertext`, or `None` if it was not sealed by these keys.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let (tag, text) = rest.split_first_chunk::<TAG_LEN>()?;
        let mut text = text.to_vec();
        self.0.decrypt_in_place_detached(nonce.into(), &[], &mut text, tag.into()).ok()?;
        Some(text)
    }
}

impl fmt::Debug for SharedBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedBox(..)")
    }
}

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The 32 bytes that 64 hexadecimal digits of either case spell.
#[must_use]
pub fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

fn clamp(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes[0] &= 248;
    bytes[31] = (bytes[31] & 127) | 64;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(first: u8, middle: u8, last: u8) -> NodeSecret {
        let mut bytes = [middle; 32];
        bytes[0] = first;
        bytes[31] = last;
        NodeSecret::from_bytes(bytes)
    }

    #[test]
    fn public_keys_match_the_reference_vectors() {
        assert_eq!(
            pair(0x10, 0x11, 0x51).public().to_hex(),
            "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"
        );
        assert_eq!(
            pair(0x20, 0x22, 0x62).public().to_hex(),
            "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"
        );
    }

    #[test]
    fn a_box_opens_only_between_its_keys() {
        let (a, b, c) = (pair(0x10, 0x11, 0x51), pair(0x20, 0x22, 0x62), pair(0x30, 0x33, 0x73));
        let mut sealed = Vec::new();
        a.shared(&b.public()).seal(b"hello", &mut Seed::from_u64(1).rng(), &mut sealed);
        assert_eq!(b.shared(&a.public()).open(&sealed).as_deref(), Some(&b"hello"[..]));
        assert_eq!(c.shared(&a.public()).open(&sealed), None);
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(b.shared(&a.public()).open(&sealed), None);
        assert_eq!(b.shared(&a.public()).open(&sealed[..30]), None);
    }

    #[test]
    fn text_forms_round_trip_and_refuse_the_rest() {
        let key = pair(0x10, 0x11, 0x51).public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("discokey:00".parse::<NodePublic>(), Err(KeyError::Prefix("nodekey:")));
        assert_eq!("nodekey:00".parse::<NodePublic>(), Err(KeyError::Digits));
        assert_eq!(format!("nodekey:{}é", "0".repeat(62)).parse::<NodePublic>(), Err(KeyError::Digits));
    }

    #[test]
    fn inner_addresses_are_ours_and_differ() {
        let (a, b) = (pair(0x10, 0x11, 0x51).public(), pair(0x20, 0x22, 0x62).public());
        assert_ne!(a.inner_address(), b.inner_address());
        assert_eq!(a.inner_address().octets()[..6], INNER_PREFIX);
    }
}
