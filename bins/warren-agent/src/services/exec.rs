//! One program, for `warren ssh`: the same programs, terminals and variables as by SSH, without its handshakes.
//!
//! Who the visitor is was settled by the tunnel, which seals all that passes too.

use super::listen::Caller;
use super::program::environment::{Asked, Place};
use super::program::inbox::{Inbox, Throttle};
use super::program::keys::Keys;
use super::program::process::{self, Group, Running, Start, What};
use super::program::silence::Attended;
use super::program::terminal::{Control, Size, Wanted};
use super::program::{PATIENCE, not_started};
use io_adapters::frames::Frames;
use io_adapters::handle::{PeerHandle, TunnelStream};
use proto_core::key::NodePublic;
use proto_core::stream::exec::{
    self, Ask, BadFrame, DATA_MAX, End, HEAD_LEN, Head, INPUT_ROOM, Output, Told,
};
use rustix::process::Signal;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{Mutex, Notify};

/// Input that was read before the visitor is told that there is room again.
const ROOM_STEP: u32 = INPUT_ROOM / 16;

type Stream = Attended<TunnelStream>;

/// Serves a program to its end, or the visitor's.
pub(crate) async fn serve(
    stream: TunnelStream,
    peer: PeerHandle,
    workspace: String,
    agent: NodePublic,
) -> io::Result<()> {
    let place = Place { workspace, visitor: peer.key().inner_address(), agent: agent.inner_address() };
    let (from, to) = split(Attended::new(stream, PATIENCE));
    let (mut frames, wire) = (Frames::new(from), Wire(Mutex::new(to)));
    let input = Input::default();
    let Some((command, asked)) = asked(&mut frames).await? else { return Ok(()) };
    let shell = command.is_none();
    tracing::debug!(peer = %peer.id(), shell, "starting a program for a visitor");
    let what = command.map_or(What::Shell, What::Command);
    let end = match start(what, asked, peer, place).run() {
        Ok(running) => carry(&mut frames, &wire, &input, running).await?,
        Err(error) => {
            let (sentence, status) = not_started(&error);
            wire.tell(&Told::Errors(sentence.as_bytes())).await?;
            Some(End { status, signal: None })
        }
    };
    if let Some(end) = end {
        wire.tell(&Told::End(end)).await?;
    }
    wire.0.into_inner().shutdown().await
}

/// What the visitor wants: a command, if it is not the shell, and how. Nothing if they have left.
async fn asked(frames: &mut Frames<ReadHalf<Stream>>) -> io::Result<Option<(Option<Vec<u8>>, exec::Start)>> {
    let mut command = None;
    while let Some((kind, held)) = frames.next().await? {
        match Ask::parse(kind, &held).map_err(bad)? {
            Ask::Command(text) => command = Some(text.to_vec()),
            Ask::Start(start) => return Ok(Some((command, start))),
            _ => {}
        }
    }
    Ok(None)
}

fn start(what: What, wanted: exec::Start, peer: PeerHandle, place: Place) -> Start {
    let mut asked = Asked::default();
    for (name, value) in &wanted.variables {
        asked.set(name, value);
    }
    let terminal = wanted.terminal.map(|terminal| Wanted {
        kind: terminal.kind,
        size: size(terminal.size),
        modes: terminal
            .modes
            .into_iter()
            .filter_map(|(mode, value)| Some((russh::Pty::from_u8(mode)?, value)))
            .collect(),
    });
    let keys = wanted.keys.and_then(|listener| {
        let caller = Arc::new(Caller { peer, listener });
        let keys = Keys::forward(move |connection| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.carry(connection).await });
        });
        keys.inspect_err(|error| tracing::debug!(%error, "a visitor's keys cannot be reached from here")).ok()
    });
    Start { what, asked, terminal, keys, place }
}

const fn size(size: exec::Size) -> Size {
    Size { columns: size.columns, rows: size.rows, width: size.width, height: size.height }
}

fn bad(error: BadFrame) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Carries a program's data until it has ended and all it wrote is sent: how it ended. None if the visitor left first.
async fn carry(
    frames: &mut Frames<ReadHalf<Stream>>,
    wire: &Wire,
    input: &Input,
    running: Running,
) -> io::Result<Option<End>> {
    let Running { mut child, input: into, output, errors, control, keys } = running;
    let group = process::group(&child);
    let unwanted = [Notify::new(), Notify::new()];
    let ended = async {
        let errors = async {
            match errors {
                Some(errors) => wire.pass_on(errors, Output::Errors, &unwanted[1]).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(wire.pass_on(output, Output::Standard, &unwanted[0]), errors)?;
        child.wait().await
    };
    let obey = |ask: &Ask<'_>| obey(ask, group, control.as_ref(), &unwanted);
    let status = tokio::select! {
        biased;
        ended = ended => ended.map(Some),
        left = take_in(frames, input, obey) => left.map(|()| None),
        fed = feed(input, into, wire, control.as_ref()) => fed.map(|()| None),
    };
    if !matches!(status, Ok(Some(_))) {
        process::hang_up(&mut child);
    }
    drop(keys);
    Ok(status?.map(|status| process::End::from(status).told()))
}

/// Does what a visitor asks of a program that runs.
fn obey(ask: &Ask<'_>, group: Group, control: Option<&Control>, unwanted: &[Notify; 2]) {
    match ask {
        Ask::Signal(name) => {
            if let Some(signal) = process::signal(name) {
                group.send(signal);
            }
        }
        Ask::Resize(wanted) => {
            if let Some(control) = control {
                control.resize(size(*wanted));
            }
        }
        // A terminal that nobody sees is one that was hung up.
        Ask::Unwanted(_) if control.is_some() => group.send(Signal::HUP),
        Ask::Unwanted(Output::Standard) => unwanted[0].notify_one(),
        Ask::Unwanted(Output::Errors) => unwanted[1].notify_one(),
        _ => {}
    }
}

/// The input that has come and was not read yet.
struct Input {
    inbox: Inbox,
    /// How much more may come.
    room: AtomicU32,
}

impl Default for Input {
    fn default() -> Self {
        Self { inbox: Inbox::new(Throttle::default()), room: AtomicU32::new(INPUT_ROOM) }
    }
}

/// Takes in all that comes, until the visitor has left. What is no input is shown to `other`.
async fn take_in(
    frames: &mut Frames<ReadHalf<Stream>>,
    input: &Input,
    other: impl Fn(&Ask<'_>),
) -> io::Result<()> {
    while let Some((kind, held)) = frames.next().await? {
        match Ask::parse(kind, &held).map_err(bad)? {
            Ask::Input(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let room = input.room.load(Ordering::Relaxed).checked_sub(length);
                let room = room.ok_or_else(|| io::Error::other("more input came than there is room for"))?;
                input.room.store(room, Ordering::Relaxed);
                input.inbox.push(held);
            }
            Ask::InputEnd => input.inbox.end(),
            ask => other(&ask),
        }
    }
    Ok(())
}

/// Writes what has come to a program, then the end, and stays.
async fn feed(
    input: &Input,
    mut into: impl AsyncWrite + Unpin,
    wire: &Wire,
    control: Option<&Control>,
) -> io::Result<()> {
    let (mut read, mut refused) = (0, false);
    while let Some(piece) = input.inbox.next().await {
        // What is not wanted there is thrown away.
        refused = refused || into.write_all(&piece).await.is_err();
        read += u32::try_from(piece.len()).unwrap_or(0);
        if read >= ROOM_STEP {
            input.room.fetch_add(read, Ordering::Relaxed);
            wire.tell(&Told::Room(std::mem::take(&mut read))).await?;
        }
    }
    // A terminal has no end: a program that reads lines from it knows a character for that.
    if let Some(end) = control.and_then(Control::end_of_input) {
        let _ = into.write_all(&[end]).await;
    }
    drop(into);
    std::future::pending().await
}

/// The way to the visitor, for several that speak: each frame goes whole.
struct Wire(Mutex<WriteHalf<Stream>>);

impl Wire {
    async fn tell(&self, told: &Told<'_>) -> io::Result<()> {
        self.0.lock().await.write_all(&told.encode()).await
    }

    /// Sends what there is to read, as fast as the visitor takes it, until there is no more or it is not wanted.
    async fn pass_on(
        &self,
        mut from: impl AsyncRead + Unpin,
        output: Output,
        unwanted: &Notify,
    ) -> io::Result<()> {
        let mut buffer = vec![0; HEAD_LEN + DATA_MAX];
        loop {
            let read = tokio::select! {
                biased;
                () = unwanted.notified() => return Ok(()),
                read = from.read(&mut buffer[HEAD_LEN..]) => read,
            };
            // A terminal that all programs have left ends by an error.
            let Ok(length @ 1..) = read else { return Ok(()) };
            buffer[..HEAD_LEN].copy_from_slice(&Head { kind: output.kind(), length }.encode());
            self.0.lock().await.write_all(&buffer[..HEAD_LEN + length]).await?;
        }
    }
}
