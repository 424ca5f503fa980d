//! A capture of what travels inside the tunnels, in the form that tcpdump and Wireshark read: the decrypted packets,
//! as they are before they are sealed and after they are opened.

use proto_core::time::Time;
use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number that a file with microseconds begins with.
const MAGIC: u32 = 0xa1b2_c3d4;
/// What the packets are: `LINKTYPE_RAW`, IPv4 or IPv6 without anything before it.
const RAW_IP: u32 = 101;
/// The longest packet kept whole.
const SNAP: u32 = 65_535;
/// Bytes of a capture: a speed test fills a gigabyte in seconds, and a disk in minutes.
pub const CAPTURE_MAX: u64 = 1 << 30;

/// A capture. Clones write into the same file.
#[derive(Clone)]
pub struct Tap(Arc<Mutex<Capture>>);

struct Capture {
    out: BufWriter<Box<dyn Write + Send>>,
    /// What the node's clock showed at no time of its own: 1970 and this much.
    origin: Option<Duration>,
    written: u64,
    summary: Summary,
    failed: Option<io::Error>,
}

/// What a capture holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that had no room in it any more.
    pub left_out: u64,
}

impl Tap {
    /// A capture in this file, which only its owner can read. A file that is there is overwritten.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        if file.metadata()?.is_file() {
            // One that was there has kept its mode.
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Self::into(file)
    }

    fn into(file: impl Write + Send + 'static) -> io::Result<Self> {
        let mut out = BufWriter::new(Box::new(file) as Box<dyn Write + Send>);
        let mut head = [0; 24];
        head[..4].copy_from_slice(&MAGIC.to_le_bytes());
        // Version 2.4 of the format.
        head[4..6].copy_from_slice(&2_u16.to_le_bytes());
        head[6..8].copy_from_slice(&4_u16.to_le_bytes());
        head[16..20].copy_from_slice(&SNAP.to_le_bytes());
        head[20..].copy_from_slice(&RAW_IP.to_le_bytes());
        out.write_all(&head)?;
        let written = head.len() as u64;
        let capture = Capture { out, origin: None, written, summary: Summary::default(), failed: None };
        Ok(Self(Arc::new(Mutex::new(capture))))
    }

    /// A packet at this time of the node's clock.
    pub(crate) fn packet(&self, packet: &[u8], now: Time) {
        let mut capture = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if capture.failed.is_some() {
            return;
        }
        if let Err(error) = capture.packet(packet, now) {
            capture.failed = Some(error);
        }
    }

    /// Writes what is not in the file yet.
    ///
    /// # Errors
    /// What the operating system has said to this or to an earlier packet.
    pub fn finish(&self) -> io::Result<Summary> {
        let mut capture = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = capture.failed.take() {
            return Err(error);
        }
        capture.out.flush()?;
        Ok(capture.summary)
    }
}

impl Capture {
    fn packet(&mut self, packet: &[u8], now: Time) -> io::Result<()> {
        let kept = packet.len().min(SNAP as usize);
        let room = 16 + kept as u64;
        if self.written + room > CAPTURE_MAX {
            self.summary.left_out += 1;
            return Ok(());
        }
        let since = Duration::from_micros(now.as_micros());
        let origin = *self.origin.get_or_insert_with(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(since)
        });
        let at = origin + since;
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut head = [0; 16];
        head[..4].copy_from_slice(&number(at.as_secs()));
        head[4..8].copy_from_slice(&at.subsec_micros().to_le_bytes());
        head[8..12].copy_from_slice(&number(kept as u64));
        head[12..].copy_from_slice(&number(packet.len() as u64));
        self.out.write_all(&head)?;
        self.out.write_all(&packet[..kept])?;
        self.written += room;
        self.summary.packets += 1;
        Ok(())
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in memory that others can look into.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn packets_stand_in_the_file_with_their_times() {
        let file = Shared::default();
        let tap = Tap::into(file.clone()).unwrap();
        tap.packet(b"first", Time::from_micros(5));
        let other = tap.clone();
        other.packet(b"second", Time::from_micros(1_000_007));
        assert_eq!(tap.finish().unwrap(), Summary { packets: 2, left_out: 0 });
        let bytes = file.0.lock().unwrap().clone();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(20), bytes.len()), (MAGIC, RAW_IP, 24 + 16 + 5 + 16 + 6));
        assert_eq!((number(32), number(36), &bytes[40..45]), (5, 5, &b"first"[..]));
        let micros = |at: usize| u64::from(number(at)) * 1_000_000 + u64::from(number(at + 4));
        assert_eq!(micros(45) - micros(24), 1_000_002);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(u64::from(number(24))) < 60);
    }

    #[test]
    fn a_file_that_was_there_is_the_owners_alone() {
        let file = std::env::temp_dir().join(format!("warren-capture-{}", std::process::id()));
        std::fs::write(&file, "before").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let tap = Tap::create(&file).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        tap.finish().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let tap = Tap::into(Full).unwrap();
        for _ in 0..100 {
            tap.packet(&[0; 1_300], Time::ZERO);
        }
        assert_eq!(tap.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
