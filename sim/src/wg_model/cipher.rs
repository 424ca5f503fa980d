//! The toy cipher: a key stream and a tag of 64-bit words. It keeps honest nodes apart, nobody else out.

use super::session::word;
use proto_core::key::{NONCE_LEN, NodePublic, NodeSecret, TAG_LEN};

/// One round of a 64-bit mixer.
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 29)
}

/// What only the owners of the two keys can know: the first bytes of their NaCl box's key stream.
pub(super) fn shared(secret: &NodeSecret, peer: &NodePublic) -> u64 {
    let mut sealed = Vec::with_capacity(NONCE_LEN + TAG_LEN + 8);
    secret.shared(peer).seal_with(&[0; 8], *b"warren simulated secret.", &mut sealed);
    word(&sealed[NONCE_LEN + TAG_LEN..])
}

/// A number for a public key.
pub(super) fn name(key: &NodePublic) -> u64 {
    key.0.chunks_exact(8).fold(1, |hash, chunk| mix(hash, word(chunk)))
}

/// Hides or shows `text`.
pub(super) fn apply(key: u64, text: &mut [u8]) {
    for (n, chunk) in text.chunks_mut(8).enumerate() {
        let pad = mix(key, n as u64 ^ 0x5bd1_e995_0000_0000).to_le_bytes();
        for (byte, pad) in chunk.iter_mut().zip(pad) {
            *byte ^= pad;
        }
    }
}

/// The tag of `text`.
pub(super) fn tag(key: u64, text: &[u8]) -> [u8; 16] {
    let mut hash = mix(key, text.len() as u64);
    let mut chunks = text.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash, word(chunk));
    }
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    hash = mix(hash, word(&rest));
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&hash.to_le_bytes());
    tag[8..].copy_from_slice(&mix(hash, key).to_le_bytes());
    tag
}
