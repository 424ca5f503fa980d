//! UDP inside a tunnel: datagrams in flows, each beside a stream of its own.
//!
//! A flow's stream begins with [`Header::Udp`](super::Header::Udp) and carries frames both ways: a length (u16,
//! big-endian) and a datagram of that many bytes, or [`NOTICE`] and one byte, a [`UdpNotice`]. Once the acceptor has said
//! that it is ready, either end may send datagrams outside the stream as well, as the tunnel's own datagrams with a
//! [`FlowTag`] in front; the stream then carries what is too long for those. The end of the stream is the flow's.

use core::fmt;

/// The length that stands before a notice: no UDP datagram is as long.
pub const NOTICE: u16 = u16::MAX;
/// Bytes of the longest datagram: IPv4's 65,535 less its header and UDP's.
pub const DATAGRAM_MAX: usize = 65_507;
/// Bytes of a [`FlowTag`].
pub const TAG_LEN: usize = 5;

/// Whose a datagram of the tunnel is: the first [`TAG_LEN`] bytes of it, a direction and the flow's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FlowTag {
    /// The number, given by who opened the flow.
    pub flow: u32,
    /// Whether the datagram is from who opened the flow; else it is to them.
    pub opener: bool,
}

impl FlowTag {
    /// The tag of what comes back.
    #[must_use]
    pub const fn back(self) -> Self {
        Self { flow: self.flow, opener: !self.opener }
    }

    /// The tag and what it belongs to.
    #[must_use]
    pub fn put_before(self, bytes: &[u8]) -> Vec<u8> {
        let mut tagged = Vec::with_capacity(TAG_LEN + bytes.len());
        tagged.push(u8::from(!self.opener));
        tagged.extend_from_slice(&self.flow.to_be_bytes());
        tagged.extend_from_slice(bytes);
        tagged
    }

    /// Reads the tag in front of a datagram; none if it is not one of a flow.
    #[must_use]
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (tag, _) = datagram.split_first_chunk::<TAG_LEN>()?;
        let [direction @ (0 | 1), a, b, c, d] = *tag else { return None };
        Some(Self { flow: u32::from_be_bytes([a, b, c, d]), opener: direction == 0 })
    }
}

/// What the acceptor says of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum UdpNotice {
    /// Datagrams outside the stream are understood from now on.
    #[error("ready")]
    Ready = 0,
    /// The other host said that nobody listens there (ICMP port unreachable).
    #[error("nothing listens on that port")]
    Refused = 1,
    /// There is no way to that address.
    #[error("the workspace has no way to that address")]
    Unreachable = 2,
    /// A datagram is longer than the way there takes.
    #[error("a datagram is longer than the way there takes")]
    TooLong = 3,
    /// Something else, or a notice that this build does not know.
    #[error("the workspace could not send")]
    Failed = 4,
}

impl UdpNotice {
    /// The notice of this byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Ready,
            1 => Self::Refused,
            2 => Self::Unreachable,
            3 => Self::TooLong,
            _ => Self::Failed,
        }
    }
}

/// A piece of a flow's stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UdpFrame<'a> {
    /// A datagram.
    Datagram(&'a [u8]),
    /// A notice.
    Notice(UdpNotice),
}

impl fmt::Debug for UdpFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagram(bytes) => write!(f, "Datagram({} bytes)", bytes.len()),
            Self::Notice(notice) => write!(f, "Notice({notice:?})"),
        }
    }
}

impl<'a> UdpFrame<'a> {
    /// The frame's bytes. A datagram is cut to [`DATAGRAM_MAX`], which none exceeds.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Notice(notice) => {
                let [a, b] = NOTICE.to_be_bytes();
                vec![a, b, notice as u8]
            }
            Self::Datagram(bytes) => {
                let bytes = bytes.get(..DATAGRAM_MAX).unwrap_or(bytes);
                let mut out = u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes().to_vec();
                out.extend_from_slice(bytes);
                out
            }
        }
    }

    /// Reads the frame at the front of `bytes`, and how many bytes it took; none if more are needed.
    ///
    /// # Errors
    /// If the length is one that no frame has. More bytes will not help.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, BadFrame> {
        let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        let length = u16::from_be_bytes(*length);
        if length == NOTICE {
            return Ok(rest.first().map(|byte| (Self::Notice(UdpNotice::from_byte(*byte)), 3)));
        }
        let length = usize::from(length);
        if length > DATAGRAM_MAX {
            return Err(BadFrame(length));
        }
        Ok(rest.get(..length).map(|datagram| (Self::Datagram(datagram), 2 + length)))
    }
}

/// A length that no frame has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a datagram of {0} bytes is longer than any")]
pub struct BadFrame(pub usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_read_as_they_were_written_whatever_follows() {
        let long = vec![7; DATAGRAM_MAX];
        for frame in [
            UdpFrame::Datagram(b""),
            UdpFrame::Datagram(b"query"),
            UdpFrame::Datagram(&long),
            UdpFrame::Notice(UdpNotice::Ready),
            UdpFrame::Notice(UdpNotice::Refused),
        ] {
            let mut bytes = frame.encode();
            let length = bytes.len();
            assert_eq!(UdpFrame::decode(&bytes[..length - 1]), Ok(None), "{frame:?}");
            bytes.extend_from_slice(b"the next");
            assert_eq!(UdpFrame::decode(&bytes), Ok(Some((frame, length))));
        }
        assert_eq!(UdpFrame::decode(&[0xff, 0xfe, 0]), Err(BadFrame(0xfffe)));
        assert_eq!(
            UdpFrame::decode(&[0xff, 0xff, 99]).unwrap().unwrap().0,
            UdpFrame::Notice(UdpNotice::Failed)
        );
    }

    #[test]
    fn tags_tell_flows_and_directions_apart() {
        let tag = FlowTag { flow: 0x0102_0304, opener: true };
        let bytes = tag.put_before(b"payload");
        assert_eq!(bytes, b"\0\x01\x02\x03\x04payload");
        assert_eq!(FlowTag::read(&bytes), Some(tag));
        assert_eq!(FlowTag::read(&tag.back().put_before(b"")), Some(FlowTag { opener: false, ..tag }));
        assert_eq!(FlowTag::read(&bytes[..TAG_LEN - 1]), None);
        assert_eq!(FlowTag::read(&[2, 0, 0, 0, 0]), None, "a kind of the future is nobody's");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = FlowTag::read(&bytes);
            if let Ok(Some((_, took))) = UdpFrame::decode(&bytes) {
                prop_assert!(took <= bytes.len());
            }
        }
    }
}
