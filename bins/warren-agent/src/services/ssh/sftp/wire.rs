//! The bytes of SFTP (draft-ietf-secsh-filexfer-02): requests that are read and answers that are written.

use std::io;
use std::os::unix::fs::MetadataExt;

/// The longest packet, as OpenSSH's server has it.
pub(super) const PACKET_MAX: usize = 256 << 10;
/// Bytes that may be read or written by one request: a packet without its head.
pub(super) const DATA_MAX: usize = PACKET_MAX - 1_024;
/// The version spoken.
const VERSION: u32 = 3;

const SIZE: u32 = 0x1;
const OWNER: u32 = 0x2;
const MODE: u32 = 0x4;
const TIMES: u32 = 0x8;
const EXTENDED: u32 = 0x8000_0000;

/// How a request went, as a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Status {
    Ok = 0,
    End = 1,
    NoSuchFile = 2,
    Denied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: Status,
    pub words: String,
}

impl Failure {
    pub(super) fn new(status: Status, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => Status::NoSuchFile,
            io::ErrorKind::PermissionDenied => Status::Denied,
            io::ErrorKind::Unsupported => Status::Unsupported,
            _ => Status::Failure,
        };
        Self::new(status, error.to_string())
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// What a file is to become, as far as it is said.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Attributes {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Seconds since 1970 of the last access and the last change.
    pub times: Option<(u32, u32)>,
}

/// The fields of a request, one after the other.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Failure> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Failure> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Failure> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Failure> {
        let length = self.u32()? as usize;
        let (string, rest) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        Ok(string)
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Failure> {
        let flags = self.u32()?;
        let mut read = Attributes::default();
        if flags & SIZE != 0 {
            read.size = Some(self.u64()?);
        }
        if flags & OWNER != 0 {
            read.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & MODE != 0 {
            read.mode = Some(self.u32()?);
        }
        if flags & TIMES != 0 {
            read.times = Some((self.u32()?, self.u32()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(read)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(*array)
    }
}

fn short() -> Failure {
    Failure::new(Status::BadMessage, "the request is shorter than it says")
}

/// An answer as it is written, its length first.
pub(super) struct Answer(Vec<u8>);

impl Answer {
    fn new(kind: u8, id: u32) -> Self {
        let mut answer = Self(vec![0, 0, 0, 0, kind]);
        answer.u32(id);
        answer
    }

    /// Our version and what we know beside it: names and versions.
    pub(super) fn version(extensions: &[(&str, &str)]) -> Self {
        let mut answer = Self::new(2, VERSION);
        for (name, version) in extensions {
            answer.string(name.as_bytes());
            answer.string(version.as_bytes());
        }
        answer
    }

    pub(super) fn status(id: u32, status: Status, words: &str) -> Self {
        let mut answer = Self::new(101, id);
        answer.u32(status as u32);
        answer.string(words.as_bytes());
        answer.string(b"en");
        answer
    }

    pub(super) fn handle(id: u32, handle: u32) -> Self {
        let mut answer = Self::new(102, id);
        answer.string(&handle.to_be_bytes());
        answer
    }

    /// Data that `read` puts where it is sent from: at most `length`, less if there is less, none at the end.
    pub(super) fn data(
        id: u32,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Result<Self, Failure> {
        let mut answer = Self::new(103, id);
        answer.u32(0);
        let head = answer.0.len();
        answer.0.resize(head + length, 0);
        let read = read(&mut answer.0[head..])?;
        if read == 0 {
            return Err(Failure::new(Status::End, "end of file"));
        }
        answer.0.truncate(head + read);
        answer.0[head - 4..head].copy_from_slice(&u32::try_from(read).unwrap_or(0).to_be_bytes());
        Ok(answer)
    }

    /// Names, each with a line for people and, if it is known, what it is.
    pub(super) fn names(id: u32, names: &[(Vec<u8>, Vec<u8>, Option<std::fs::Metadata>)]) -> Self {
        let mut answer = Self::new(104, id);
        answer.u32(u32::try_from(names.len()).unwrap_or(0));
        for (name, line, metadata) in names {
            answer.string(name);
            answer.string(line);
            match metadata {
                Some(metadata) => answer.put_attributes(metadata),
                None => answer.u32(0),
            }
        }
        answer
    }

    pub(super) fn attributes(id: u32, metadata: &std::fs::Metadata) -> Self {
        let mut answer = Self::new(105, id);
        answer.put_attributes(metadata);
        answer
    }

    /// Numbers that answer an extension's request.
    pub(super) fn numbers(id: u32, numbers: &[u64]) -> Self {
        let mut answer = Self::new(201, id);
        numbers.iter().for_each(|number| answer.u64(*number));
        answer
    }

    /// The bytes to send.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(0);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }

    fn put_attributes(&mut self, metadata: &std::fs::Metadata) {
        // The protocol ends in 2106.
        let seconds = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        self.u32(SIZE | OWNER | MODE | TIMES);
        self.u64(metadata.size());
        self.u32(metadata.uid());
        self.u32(metadata.gid());
        self.u32(metadata.mode());
        self.u32(seconds(metadata.atime()));
        self.u32(seconds(metadata.mtime()));
    }

    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn string(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(0));
        self.0.extend_from_slice(bytes);
    }
}
