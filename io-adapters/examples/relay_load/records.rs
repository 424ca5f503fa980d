//! TLS records, counted without being opened: a receiver that opens all it is sent costs as much as the relay that
//! sent it, and the relay would wait for its clients.

/// Bytes of a record's header: its type, a version, its length.
const HEADER: usize = 5;
/// What a record of TLS 1.3 holds beside what it carries, in bytes: the tag of its cipher and its true type.
const SEAL: usize = 16 + 1;
/// The type of records that are sealed.
const APPLICATION_DATA: u8 = 23;

/// Where in the stream of records we are.
#[derive(Debug, Default)]
pub(crate) struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    got: usize,
    /// Bytes to come of the record.
    rest: usize,
    /// Bytes that the records carried so far.
    carried: u64,
}

impl Records {
    /// Goes on with these bytes; how many bytes the records have carried since the first, or none if this is no TLS.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            if self.rest == 0 {
                let (more, after) = bytes.split_at(bytes.len().min(HEADER - self.got));
                self.header[self.got..self.got + more.len()].copy_from_slice(more);
                self.got += more.len();
                bytes = after;
                if self.got < HEADER {
                    break;
                }
                self.got = 0;
                self.rest = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                let carried = self.rest.checked_sub(SEAL).filter(|_| self.header[0] == APPLICATION_DATA)?;
                self.carried += carried as u64;
            }
            let passed = bytes.len().min(self.rest);
            self.rest -= passed;
            bytes = &bytes[passed..];
        }
        Some(self.carried)
    }
}
