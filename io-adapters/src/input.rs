//! Standard input, read only when there is something in it: whatever is typed when a session is over is the next
//! program's, and no thread is left behind that waits for it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};

/// Input of any kind.
#[derive(Debug)]
pub struct Input(Kind);

#[derive(Debug)]
enum Kind {
    /// A terminal, a pipe or a socket. It is not told never to block, since others may share it.
    Waits(AsyncFd<File>),
    /// A file, or a device that always has something: read by a thread.
    Has(tokio::fs::File),
}

impl Input {
    /// Of a copy of this descriptor.
    ///
    /// # Errors
    /// What the operating system says.
    #[allow(unsafe_code, reason = "how tokio registers a descriptor of any kind")]
    pub fn new(input: impl AsFd) -> io::Result<Self> {
        let input = File::from(input.as_fd().try_clone_to_owned()?);
        let copy = input.try_clone()?;
        // SAFETY: the file owns its descriptor, which stays open and the same until the registration's end.
        let registered = unsafe { AsyncFd::register_with_interest(input, Interest::READABLE) };
        Ok(Self(match registered {
            Ok(input) => Kind::Waits(input),
            // There is nothing to wait for.
            Err(_) => Kind::Has(tokio::fs::File::from_std(copy)),
        }))
    }

    /// Reads what there is: how many bytes, none at the end. May be given up and called again at any time.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let input = match &mut self.0 {
            Kind::Has(file) => return file.read(into).await,
            Kind::Waits(input) => input,
        };
        loop {
            let mut ready = input.readable().await?;
            // Another program may have taken it meanwhile.
            if !is_readable(ready.get_inner())? {
                ready.clear_ready();
                continue;
            }
            match ready.get_inner().read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                read => return read,
            }
        }
    }
}

/// Whether a read would return at once.
#[allow(unsafe_code, reason = "a call of the C library with a structure of our own")]
fn is_readable(input: &File) -> io::Result<bool> {
    let mut asked = libc::pollfd { fd: input.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which outlives the call; the descriptor is open.
    match unsafe { libc::poll(&raw mut asked, 1, 0) } {
        0.. => Ok(asked.revents != 0),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_another_has_taken_is_not_waited_for_in_the_read() {
        let (theirs, mut writer) = std::io::pipe().unwrap();
        let mut input = Input::new(&theirs).unwrap();
        assert!(matches!(input.0, Kind::Waits(_)));
        let mut into = [0; 8];
        writer.write_all(b"one").unwrap();
        assert_eq!(input.read(&mut into).await.unwrap(), 3);
        for _ in 0..3 {
            writer.write_all(b"two").unwrap();
            // Known to be ready, and then taken.
            if let Kind::Waits(input) = &input.0 {
                input.readable().await.unwrap().retain_ready();
            }
            (&theirs).read_exact(&mut into[..3]).unwrap();
            assert!(timeout(Duration::from_millis(50), input.read(&mut into)).await.is_err());
        }
        writer.write_all(b"three").unwrap();
        assert_eq!(input.read(&mut into).await.unwrap(), 5);
        drop(writer);
        assert_eq!(input.read(&mut into).await.unwrap(), 0);
        // Octal, and 4000 is what tells it never to block.
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", theirs.as_raw_fd())).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        assert_eq!(i64::from_str_radix(flags.trim(), 8).unwrap() & 0o4000, 0, "it is left as it was");
    }

    #[tokio::test]
    async fn files_are_read_to_their_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut input = Input::new(&file).unwrap();
        let mut into = [0; 8];
        assert_eq!(input.read(&mut into).await.unwrap(), 4);
        assert_eq!(input.read(&mut into).await.unwrap(), 0);
        let mut nothing = Input::new(std::fs::File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(nothing.read(&mut into).await.unwrap(), 0);
    }
}
