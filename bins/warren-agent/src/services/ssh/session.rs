//! One session: a channel and the program on it.

use super::carry::{deliver, pass_on, take_in};
use super::sftp;
use crate::services::program::inbox::{Inbox, Throttle};
use crate::services::program::not_started;
use crate::services::program::process::{self, End, Group, Running, Start, What};
use crate::services::program::terminal::{Control, Size};
use crate::services::program::user::User;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

/// The stream of extended data that is standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;

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
            _ = take_in(&mut self.incoming, &self.inbox, |_| {}) => return,
        };
        // Else the connection is gone.
        let Ok(start) = start else { return };
        let ended = match start.what {
            What::Files => self.serve_files().await,
            _ => match start.run() {
                Ok(running) => self.carry(running).await,
                Err(error) => Some(self.refuse(&error).await),
            },
        };
        if let Some(end) = ended {
            self.finish(end).await;
        }
    }

    /// Carries a program's data until it has ended and all it wrote is sent: how it ended. None if the channel or the
    /// connection ended first.
    async fn carry(&mut self, running: Running) -> Option<End> {
        let Running { mut child, input, mut output, errors, control, keys } = running;
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
            child.wait().await.ok().map(End::from)
        };
        let obey = |message| obey(message, group, control.as_ref());
        let end = tokio::select! {
            biased;
            end = ended => end,
            _ = take_in(&mut self.incoming, &self.inbox, obey) => None,
            () = feed(&self.inbox, input, control.as_ref()) => None,
        };
        if end.is_none() {
            process::hang_up(&mut child);
        }
        drop(keys);
        end
    }

    /// Serves files until the visitor has enough: how it ended, or none if the channel ended first.
    async fn serve_files(&mut self) -> Option<End> {
        let home = User::current().folder().to_owned();
        tokio::select! {
            biased;
            () = sftp::serve(&self.inbox, &self.outgoing, home) => {}
            _ = take_in(&mut self.incoming, &self.inbox, |_| {}) => return None,
        }
        Some(End::Status(0))
    }

    /// Says why a program could not be started, where its own errors would have come.
    async fn refuse(&self, error: &io::Error) -> End {
        let (sentence, status) = not_started(error);
        let _ = self.outgoing.extended_data_bytes(STDERR, sentence.into_bytes()).await;
        End::Status(status.into())
    }

    /// Says how it ended. That goes before the end of the data: a visitor who has ended too closes the channel then,
    /// and hears no more of it.
    async fn finish(self, end: End) {
        let id = self.outgoing.id();
        let _ = match end {
            End::Status(status) => self.handle.exit_status_request(id, status).await,
            End::Signal { name, core_dumped, .. } => {
                let signal = Sig::Custom(name);
                self.handle.exit_signal_request(id, signal, core_dumped, String::new(), String::new()).await
            }
        };
        let _ = self.outgoing.eof().await;
        let _ = self.outgoing.close().await;
    }
}

/// Does what a visitor asks of a program that runs.
fn obey(message: ChannelMsg, group: Group, control: Option<&Control>) {
    match message {
        ChannelMsg::Signal { signal } => {
            if let Some(signal) = process::signal(name(&signal)) {
                group.send(signal);
            }
        }
        ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
            if let Some(control) = control {
                control.resize(Size {
                    columns: col_width,
                    rows: row_height,
                    width: pix_width,
                    height: pix_height,
                });
            }
        }
        _ => {}
    }
}

/// A signal's name in the protocol.
fn name(signal: &Sig) -> &str {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
}

/// Writes what arrives to a program, then the end, and stays.
async fn feed(inbox: &Inbox, mut input: impl AsyncWrite + Unpin, control: Option<&Control>) {
    deliver(inbox, &mut input).await;
    // A terminal has no end: a program that reads lines from it knows a character for that.
    if let Some(end) = control.and_then(Control::end_of_input) {
        let _ = input.write_all(&[end]).await;
    }
    drop(input);
    std::future::pending().await
}
