//! A stream that breaks when nothing has come from the other side for too long.
//!
//! A visitor that was killed, or whose machine is gone, says no goodbye, and the tunnel waits for it to come back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The stream of a visitor who says something now and then.
pub(crate) struct Attended<S> {
    stream: S,
    patience: Duration,
    over: Pin<Box<Sleep>>,
}

impl<S> Attended<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, over: Box::pin(sleep(patience)) }
    }

    /// An error in place of a further wait that would be in vain.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.over.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the visitor has not been heard of for too long"))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.wait(cx),
            read => {
                this.over.as_mut().reset(Instant::now() + this.patience);
                read
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.wait(cx),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const PATIENCE: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_silent_visitor_is_given_up_whether_read_from_or_written_to() {
        let (ours, _theirs) = duplex(10);
        let error = Attended::new(ours, PATIENCE).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (ours, _theirs) = duplex(10);
        let error = Attended::new(ours, PATIENCE).write_all(&[0; 11]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_visitor_who_says_something_now_and_then_may_stay() {
        let (ours, mut theirs) = duplex(10);
        let mut ours = Attended::new(ours, PATIENCE);
        for n in 0..4 {
            let later = async {
                sleep(PATIENCE / 2).await;
                theirs.write_u8(n).await
            };
            let (heard, said) = tokio::join!(ours.read_u8(), later);
            assert_eq!((heard.unwrap(), said.unwrap()), (n, ()));
        }
    }
}
