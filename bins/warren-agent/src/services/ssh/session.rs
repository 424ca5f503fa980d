//! One session: a channel and the program on it.

use super::inbox::{Inbox, Throttle};
use super::process::{self, End, Group, Running, Start};
use super::terminal::{Control, Size};
use bytes::BytesMut;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

/// Bytes of output read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Room below which a new chunk is taken.
const LEAST: usize = 8 << 10;
/// The stream of extended data that is standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;
/// Exit statuses of a shell for a program that cannot be started, and for one that is not there.
const NOT_STARTED: u32 = 126;
const NOT_FOUND: u32 = 127;

/// A channel on which a program will be started.
pub(super) struct Session {
    incoming: ChannelReadHalf,
    outgoing: ChannelWriteHalf<Msg>,
    handle: Handle,
    inbox: Inbox,
}

impl Session {
    pub(super) fn new(channel: Channel<Msg>, handle: Handle, throttle: Throttle) -> Self {
        let (incoming, outgoing) = channel.split();
        Self { incoming, outgoing, handle, inbox: Inbox::new(throttle) }
    }

    /// Waits for what to start, and serves it to its end or the channel's.
    pub(super) async fn serve(mut self, start: oneshot::Receiver<Start>) {
        let start = tokio::select! {
            biased;
            start = start => start,
            () = take_in(&mut self.incoming, &self.inbox, |_| {}) => return,
        };
        // Else the connection is gone.
        let Ok(start) = start else { return };
        let running = start.run();
        let ended = match running {
            Ok(running) => self.carry(running).await,
            Err(error) => Some(self.refuse(&error).await),
        };
        if let Some(end) = ended {
            self.finish(end).await;
        }
    }

    /// Carries a program's data until it has ended and all it wrote is sent: how it ended. None if the channel or the
    /// connection ended first.
    async fn carry(&mut self, running: Running) -> Option<End> {
        let Running { mut child, input, mut output, errors, control } = running;
        let group = process::group(&child);
        let outgoing = &self.outgoing;
        let ended = async {
            let errors = async {
                match errors {
                    Some(mut errors) => pass_on(&mut errors, outgoing, Some(STDERR)).await,
                    None => Ok(()),
                }
            };
            tokio::try_join!(pass_on(&mut output, outgoing, None), errors).ok()?;
            outgoing.eof().await.ok()?;
            child.wait().await.ok().map(End::from)
        };
        let obey = |order| obey(order, group, control.as_ref());
        let end = tokio::select! {
            biased;
            end = ended => end,
            () = take_in(&mut self.incoming, &self.inbox, obey) => None,
            () = feed(&self.inbox, input, control.as_ref()) => None,
        };
        if end.is_none() {
            process::hang_up(&mut child);
        }
        end
    }

    /// Says why a program could not be started, where its own errors would have come.
    async fn refuse(&self, error: &io::Error) -> End {
        let sentence = format!("warren-agent: can't start the program: {error}\r\n");
        let _ = self.outgoing.extended_data_bytes(STDERR, sentence.into_bytes()).await;
        let _ = self.outgoing.eof().await;
        End::Status(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED })
    }

    async fn finish(self, end: End) {
        let id = self.outgoing.id();
        let _ = match end {
            End::Status(status) => self.handle.exit_status_request(id, status).await,
            End::Signal { signal, core_dumped } => {
                self.handle.exit_signal_request(id, signal, core_dumped, String::new(), String::new()).await
            }
        };
        let _ = self.outgoing.close().await;
    }
}

/// What a visitor asks of a program that runs.
enum Order {
    Signal(russh::Sig),
    Resize(Size),
}

/// Takes in all that arrives, until the channel is over.
async fn take_in(incoming: &mut ChannelReadHalf, inbox: &Inbox, obey: impl Fn(Order)) {
    while let Some(message) = incoming.wait().await {
        match message {
            ChannelMsg::Data { data } => inbox.push(data),
            ChannelMsg::Eof => inbox.end(),
            ChannelMsg::Close => return,
            ChannelMsg::Signal { signal } => obey(Order::Signal(signal)),
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                let size =
                    Size { columns: col_width, rows: row_height, width: pix_width, height: pix_height };
                obey(Order::Resize(size));
            }
            _ => {}
        }
    }
}

fn obey(order: Order, group: Group, control: Option<&Control>) {
    match order {
        Order::Signal(asked) => {
            if let Some(signal) = process::signal(&asked) {
                group.send(signal);
            }
        }
        Order::Resize(size) => {
            if let Some(control) = control {
                control.resize(size);
            }
        }
    }
}

/// Writes what arrives to a program, and then the end. What a program does not want is thrown away, for ever.
async fn feed(inbox: &Inbox, mut input: impl AsyncWrite + Unpin, control: Option<&Control>) {
    while let Some(piece) = inbox.next().await {
        if input.write_all(&piece).await.is_err() {
            while inbox.next().await.is_some() {}
            break;
        }
    }
    // A terminal has no end: a program that reads lines from it knows a character for that.
    if let Some(end) = control.and_then(Control::end_of_input) {
        let _ = input.write_all(&[end]).await;
    }
    drop(input);
    std::future::pending().await
}

/// Sends what a program writes, as fast as the visitor takes it, until the program writes no more.
async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.capacity() < LEAST {
            buffer.reserve(CHUNK);
        }
        // A terminal that all programs have left ends by an error.
        let Ok(1..) = from.read_buf(&mut buffer).await else { return Ok(()) };
        let piece = buffer.split().freeze();
        match stream {
            None => to.data_bytes(piece).await?,
            Some(stream) => to.extended_data_bytes(stream, piece).await?,
        }
    }
}
