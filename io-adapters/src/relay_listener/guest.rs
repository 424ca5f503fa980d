//! A connection of the front door, which ends abruptly if it had to give its place to another.
//!
//! Whoever ends a connection first keeps its address pair for a minute, with a timer, and waits for the other end to
//! agree. From a crowd that is more than the crowd itself costs; none of it is owed to those who are thrown out.

use super::lobby::Seat;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Guest<T> {
    io: T,
    abort: fn(&T),
    seat: Option<Arc<Seat>>,
}

impl<T> Guest<T> {
    pub(super) const fn new(io: T, abort: fn(&T)) -> Self {
        Self { io, abort, seat: None }
    }

    /// It has a place.
    pub(super) fn sit(&mut self, seat: Arc<Seat>) {
        self.seat = Some(seat);
    }
}

impl<T> Drop for Guest<T> {
    fn drop(&mut self) {
        // Without a place there was none for it.
        if self.seat.as_ref().is_none_or(|seat| seat.is_called()) {
            (self.abort)(&self.io);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guest<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guest<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use crate::relay_listener::front::Front;
    use crate::relay_listener::lobby::Lobby;
    use crate::store::MemStore;
    use crate::transport::TcpAccept as _;
    use crate::transport::TokioListener;
    use std::io::ErrorKind;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::timeout;

    #[tokio::test]
    async fn who_had_to_give_its_place_is_reset_and_who_leaves_by_itself_is_not() {
        let listener = TokioListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let at = listener.local_addr();
        let front = Arc::new(Front::<MemStore>::new(None, None).with_lobby(Lobby::new(2)));
        let door = tokio::spawn(front.clone().listen(listener, None));
        let come = async |from: u8| -> TcpStream {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, from], 0).into()).unwrap();
            socket.connect(at).await.unwrap()
        };
        let mut crowd = [come(2).await, come(2).await];
        while front.lobby().status().waiting < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut honest = come(3).await;
        let ended = timeout(Duration::from_secs(10), crowd[0].read_u8()).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
        honest.write_all(b"GET /generate_204 HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), honest.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        door.abort();
    }
}
