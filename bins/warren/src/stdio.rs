//! Standard input and output as streams, for another program that speaks by them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_buf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// Bytes carried at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Carries bytes both ways between standard input and output and a stream, until the stream has ended. The end of
/// input is passed on as that.
///
/// # Errors
/// If the stream broke. Who started us may close its ends at any time: that is no error.
pub(crate) async fn splice(stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (from, mut to) = tokio::io::split(stream);
    let (input, mut output) = (input()?, output()?);
    let (mut from, mut input) =
        (BufReader::with_capacity(CHUNK, from), BufReader::with_capacity(CHUNK, input));
    let there = async {
        let copied = copy_buf(&mut input, &mut to).await;
        // If it is the stream that broke, the other direction says why.
        if copied.is_ok() {
            let _ = to.shutdown().await;
        }
        std::future::pending().await
    };
    let back = async {
        match copy_buf(&mut from, &mut output).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && error.raw_os_error().is_some() => {
                Ok(())
            }
            copied => copied.map(drop),
        }
    };
    tokio::select! {
        biased;
        ended = back => ended,
        () = there => Ok(()),
    }
}

/// Standard input. Of a pipe or a socket it is read without a thread between.
fn input() -> io::Result<Box<dyn AsyncRead + Unpin>> {
    let fd = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(match kind(&fd)? {
        Kind::Pipe => Box::new(pipe::Receiver::from_owned_fd(fd)?),
        Kind::Socket => Box::new(socket(fd)?),
        Kind::Other => Box::new(tokio::fs::File::from_std(fd.into())),
    })
}

/// Standard output, likewise.
fn output() -> io::Result<Box<dyn AsyncWrite + Unpin>> {
    let fd = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(match kind(&fd)? {
        Kind::Pipe => Box::new(pipe::Sender::from_owned_fd(fd)?),
        Kind::Socket => Box::new(socket(fd)?),
        Kind::Other => Box::new(tokio::fs::File::from_std(fd.into())),
    })
}

enum Kind {
    Pipe,
    Socket,
    Other,
}

fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    let kind = File::from(fd.try_clone()?).metadata()?.file_type();
    Ok(match kind {
        kind if kind.is_fifo() => Kind::Pipe,
        kind if kind.is_socket() => Kind::Socket,
        _ => Kind::Other,
    })
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}
