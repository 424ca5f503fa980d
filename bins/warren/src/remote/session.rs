//! One session: what is typed goes there, what the program says comes here, until it has ended or the person leaves.

use super::escape::{self, Escape};
use super::terminal::{self, Raw};
use io_adapters::frames::Frames;
use io_adapters::handle::TunnelStream;
use io_adapters::input::Input;
use proto_core::stream::exec::{Ask, BadFrame, DATA_MAX, End, INPUT_ROOM, Output, Start, Told};
use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at, sleep_until};

/// How often the agent is told that somebody is there.
const ALIVE: Duration = Duration::from_secs(60);
/// How long a program may take to end once it was told to, before it is left alone.
const GRACE: Duration = Duration::from_secs(2);

/// What is to run, and how.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The command; none for the login shell.
    pub command: Option<Vec<u8>>,
    /// With what.
    pub start: Start,
    /// The character that is heard here.
    pub escape: Option<u8>,
}

/// How a session is over.
#[derive(Debug)]
pub(crate) enum Over {
    /// The program ended.
    Ended(End),
    /// The program ended, and not all that it wrote could be written here.
    Unwritable(io::Error),
    /// The person left.
    Left,
    /// This process was told to end, by this signal, and the program had not ended.
    Told(u8),
}

/// Runs a program over a stream that was opened for it.
///
/// # Errors
/// If the stream breaks, or its end is not the program's.
pub(crate) async fn run(stream: TunnelStream, wish: Wish) -> io::Result<Over> {
    let (from, to) = split(stream);
    let command = wish.command.as_deref().map(|text| Ask::Command(text).encode());
    let has_terminal = wish.start.terminal.is_some();
    // In one piece: with the header it is the first datagram.
    let first = [command.unwrap_or_default(), Ask::Start(wish.start).encode()].concat();
    // From here on a signal ends nothing that is not put in order first.
    let signals = Signals::new()?;
    let raw = if has_terminal { Raw::enter()? } else { None };
    let shared = Shared::default();
    let escape = wish.escape.filter(|_| raw.is_some());
    let mut speaker = Speaker { to, shared: &shared, raw: raw.as_ref(), escape, has_terminal, asked: None };
    let speaking = async {
        match speaker.speak(&first, signals).await {
            Ok(over) => over,
            // If it is the stream that broke, the other direction says why.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        ended = show(Frames::new(from), &shared) => {
            let ended = ended?;
            Ok(shared.unwritable.take().map_or(Over::Ended(ended), Over::Unwritable))
        }
        over = speaking => Ok(over),
    }
}

/// What one direction tells the other, and what it found.
struct Shared {
    /// Bytes of input that may be sent.
    room: Cell<u32>,
    /// Nobody reads the output, or the errors, here any more.
    unwanted: [Cell<bool>; 2],
    changed: Notify,
    /// Why the output cannot be written, if that is not just that nobody reads it.
    unwritable: Cell<Option<io::Error>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            room: Cell::new(INPUT_ROOM),
            unwanted: Default::default(),
            changed: Notify::new(),
            unwritable: Cell::default(),
        }
    }
}

/// Shows what the program writes, until it has ended and all of it is written.
async fn show(mut frames: Frames<ReadHalf<TunnelStream>>, shared: &Shared) -> io::Result<End> {
    let mut output = Sink::new(std::io::stdout())?;
    let mut errors = Sink::new(std::io::stderr())?;
    while let Some((kind, held)) = frames.next().await? {
        match Told::parse(kind, &held).map_err(bad)? {
            Told::Output(bytes) => {
                if let Err(error) = output.put(bytes, &shared.unwanted[0], &shared.changed).await {
                    shared.unwritable.set(Some(error));
                }
            }
            Told::Errors(bytes) => {
                // There is nowhere to say so.
                let _ = errors.put(bytes, &shared.unwanted[1], &shared.changed).await;
            }
            Told::Room(more) => {
                shared.room.set(shared.room.get().saturating_add(more));
                shared.changed.notify_one();
            }
            Told::End(end) => return Ok(end),
            Told::Unknown => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent ended the session"))
}

fn bad(error: BadFrame) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Standard output or error. They may be shared with programs that do not expect to be told to try again, so they are
/// written by a thread that waits.
struct Sink {
    file: File,
    closed: bool,
}

impl Sink {
    fn new(file: impl AsFd) -> io::Result<Self> {
        Ok(Self { file: File::from_std(file.as_fd().try_clone_to_owned()?.into()), closed: false })
    }

    /// Writes all of it, to the last byte. Once nobody reads it, or it cannot be written, it is thrown away.
    async fn put(&mut self, bytes: &[u8], unwanted: &Cell<bool>, changed: &Notify) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = async {
            self.file.write_all(bytes).await?;
            self.file.flush().await
        };
        let Err(error) = written.await else { return Ok(()) };
        self.closed = true;
        unwanted.set(true);
        changed.notify_one();
        if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
    }
}

/// Says what is typed, and what happens here.
struct Speaker<'a> {
    to: WriteHalf<TunnelStream>,
    shared: &'a Shared,
    raw: Option<&'a Raw>,
    escape: Option<u8>,
    has_terminal: bool,
    /// The program was told to end: by which signal, and until when it may.
    asked: Option<(u8, Instant)>,
}

impl Speaker<'_> {
    /// Until the person leaves, or this process has to.
    async fn speak(&mut self, first: &[u8], mut signals: Signals) -> io::Result<Over> {
        self.to.write_all(first).await?;
        let mut input = Input::new(std::io::stdin())?;
        let mut alive = interval_at(Instant::now() + ALIVE, ALIVE);
        let (mut typed, mut ended) = (vec![0; DATA_MAX], false);
        let mut escape = Escape::new(self.escape);
        loop {
            // One less: an escape character that was held back may come with it.
            let room =
                usize::try_from(self.shared.room.get()).unwrap_or(usize::MAX).min(DATA_MAX).saturating_sub(1);
            let until = self.asked.map(|(_, until)| until);
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Some((name, number)) => {
                        if let Some(over) = self.signal(name, number).await? {
                            return Ok(over);
                        }
                    }
                    None if self.has_terminal => self.resize().await?,
                    None => {}
                },
                () = self.shared.changed.notified() => self.tell_unwanted().await?,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    if let Some((number @ (HANGUP | TERMINATE), _)) = self.asked.take() {
                        return Ok(Over::Told(number));
                    }
                }
                _ = alive.tick() => self.tell(&Ask::Alive).await?,
                read = input.read(&mut typed[..room]), if !ended && room > 0 => match read {
                    Ok(read @ 1..) => {
                        if let Some(over) = self.typed(&typed[..read], &mut escape).await? {
                            return Ok(over);
                        }
                    }
                    _ => {
                        ended = true;
                        self.tell(&Ask::InputEnd).await?;
                    }
                },
            }
        }
    }

    async fn tell(&mut self, ask: &Ask<'_>) -> io::Result<()> {
        self.to.write_all(&ask.encode()).await
    }

    async fn resize(&mut self) -> io::Result<()> {
        self.tell(&Ask::Resize(terminal::size())).await
    }

    async fn tell_unwanted(&mut self) -> io::Result<()> {
        for (flag, output) in self.shared.unwanted.iter().zip([Output::Standard, Output::Errors]) {
            if flag.take() {
                self.tell(&Ask::Unwanted(output)).await?;
            }
        }
        Ok(())
    }

    /// Sends what was typed, and does what was meant for this side.
    async fn typed(&mut self, mut typed: &[u8], escape: &mut Escape) -> io::Result<Option<Over>> {
        while !typed.is_empty() {
            let mut out = Vec::with_capacity(typed.len() + 1);
            let (took, wish) = escape.read(typed, &mut out);
            typed = &typed[took..];
            if !out.is_empty() {
                let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
                self.shared.room.set(self.shared.room.get().saturating_sub(length));
                self.tell(&Ask::Input(&out)).await?;
            }
            match wish {
                Some(escape::Wish::Leave) => return Ok(Some(Over::Left)),
                Some(escape::Wish::Help) => self.help(),
                Some(escape::Wish::Suspend) => {
                    self.suspend();
                    self.resize().await?;
                }
                None => {}
            }
        }
        Ok(None)
    }

    fn help(&self) {
        use std::io::Write as _;
        let text = escape::help(self.escape.unwrap_or(escape::TILDE));
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Stops this process, until its shell lets it go on.
    fn suspend(&self) {
        if let Some(raw) = self.raw {
            raw.leave();
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP);
            let _ = raw.again();
        }
    }

    /// This process was told to end. On a terminal in raw mode that is from elsewhere, and means this process; otherwise
    /// it is for the program there, which may take a moment, or, interrupted once, go on.
    async fn signal(&mut self, name: &str, number: u8) -> io::Result<Option<Over>> {
        let again = self.asked.take().is_some_and(|(_, until)| Instant::now() < until);
        if self.raw.is_some() || again {
            return Ok(Some(Over::Told(number)));
        }
        self.tell(&Ask::Signal(name)).await?;
        self.asked = Some((number, Instant::now() + GRACE));
        Ok(None)
    }
}

const HANGUP: u8 = 1;
const INTERRUPT: u8 = 2;
const QUIT: u8 = 3;
const TERMINATE: u8 = 15;

/// The signals that end a process, and the one of a terminal's new size.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    resized: Signal,
}

impl Signals {
    /// From now on they end nothing by themselves.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// The next one that ends a process: its name and number.
    pub(crate) async fn ending(&mut self) -> (&'static str, u8) {
        loop {
            if let Some(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// The next one's name and number; none for a new size.
    async fn next(&mut self) -> Option<(&'static str, u8)> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Some(("INT", INTERRUPT)),
            _ = self.quit.recv() => Some(("QUIT", QUIT)),
            _ = self.terminate.recv() => Some(("TERM", TERMINATE)),
            _ = self.hangup.recv() => Some(("HUP", HANGUP)),
            _ = self.resized.recv() => None,
        }
    }
}
