//! Data between a channel and what is behind it: a program, a connection, another's socket.

use crate::services::program::inbox::{Inbox, Throttle};
use bytes::BytesMut;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Room below which a new chunk is taken.
const LEAST: usize = 8 << 10;

/// How a channel was over before its work was done.
pub(super) enum Over {
    /// The visitor closed it.
    Closed,
    /// The whole connection is gone.
    Lost,
}

/// Takes in all that arrives, until the channel is over. What is no data is shown to `other`.
pub(super) async fn take_in(
    incoming: &mut ChannelReadHalf,
    inbox: &Inbox,
    other: impl Fn(ChannelMsg),
) -> Over {
    while let Some(message) = incoming.wait().await {
        match message {
            ChannelMsg::Data { data } => inbox.push(data),
            ChannelMsg::Eof => inbox.end(),
            ChannelMsg::Close => return Over::Closed,
            message => other(message),
        }
    }
    Over::Lost
}

/// Writes what has arrived, until the end. What is not wanted there is thrown away.
pub(super) async fn deliver(inbox: &Inbox, to: &mut (impl AsyncWrite + Unpin)) {
    while let Some(piece) = inbox.next().await {
        if to.write_all(&piece).await.is_err() {
            while inbox.next().await.is_some() {}
            return;
        }
    }
}

/// Sends what there is to read, as fast as the visitor takes it, until there is no more: on the channel itself, or on
/// another of its streams.
pub(super) async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.capacity() < LEAST {
            buffer.reserve(CHUNK);
        }
        // A terminal that all programs have left ends by an error, and so does a connection that is reset.
        let Ok(1..) = from.read_buf(&mut buffer).await else { return Ok(()) };
        let piece = buffer.split().freeze();
        match stream {
            None => to.data_bytes(piece).await?,
            Some(stream) => to.extended_data_bytes(stream, piece).await?,
        }
    }
}

/// Joins a channel and a connection until both ways have ended. If the visitor closes the channel, what was sent before
/// still arrives.
pub(super) async fn join<C>(channel: Channel<Msg>, connection: C, throttle: Throttle)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut incoming, outgoing) = channel.split();
    let (mut from, mut to) = tokio::io::split(connection);
    let inbox = Arc::new(Inbox::new(throttle));
    let mut there = tokio::spawn({
        let inbox = inbox.clone();
        async move {
            deliver(&inbox, &mut to).await;
            let _ = to.shutdown().await;
        }
    });
    let both = async {
        let back = async {
            let _ = pass_on(&mut from, &outgoing, None).await;
            let _ = outgoing.eof().await;
        };
        tokio::join!(&mut there, back)
    };
    let over = tokio::select! {
        biased;
        _ = both => None,
        over = take_in(&mut incoming, &inbox, |_| {}) => Some(over),
    };
    match over {
        None => _ = outgoing.close().await,
        Some(Over::Closed) => inbox.end(),
        Some(Over::Lost) => there.abort(),
    }
}
