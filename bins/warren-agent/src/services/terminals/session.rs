//! One terminal: its program, who sees it, and what each of them has yet to be shown.
//!
//! What the program writes is taken into the picture and put into every visitor's queue. If all visitors are slow the
//! program is held back by the fastest, as a real terminal would; whoever falls far behind that one misses the rest, and is
//! shown the whole picture when there is room again. If nobody moves at all, or nobody is there, the program goes on.

use super::now_ms;
use super::picture::Picture;
use super::scan::is_report;
use crate::services::program::environment::{Asked, Place};
use crate::services::program::process::{self, Group, Running, Start, What};
use crate::services::program::terminal::{Control, Size, Wanted};
use bytes::Bytes;
use proto_core::stream::exec::End;
use proto_core::stream::terminal::{self, COMMAND_MAX, CREDIT, NAME_MAX, OUTPUT_MAX, Problem, Told, code};
use rustix::process::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

/// Visitors of one session.
const VIEWERS_MAX: usize = 32;
/// Bytes of one read: what a pseudo-terminal gives at once is less.
const READ: usize = 16 << 10;
/// Bytes that may wait for a visitor, besides those under way, before the program is held back for the fastest.
const HIGH: usize = 64 << 10;
/// Bytes beyond which a visitor slower than the others is shown the whole picture instead.
const BEHIND: usize = 512 << 10;
/// How long all visitors may stand still before the program goes on without them.
const HOLD: Duration = Duration::from_secs(3);
/// A program that nobody holds back writes no more than this in a pause: 16 MiB/s, a quarter of a core here.
const BURST: usize = 64 << 10;
/// That pause.
const PAUSE: Duration = Duration::from_millis(4);
/// Pieces of input that may wait for the program, and their length: a megabyte in all. What is more is lost, as on a line.
const INPUT_PIECES: usize = 256;
/// See [`INPUT_PIECES`].
const INPUT_PIECE: usize = 4 << 10;
/// How long after the program's end its terminal is read on, when others have it still.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a program may take to end when it was hung up, before it is killed.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often it is looked whether the session is wanted still.
const LOOK: Duration = Duration::from_secs(1);
/// How long an ended session's last screen is kept for those who come late.
const KEPT: Duration = Duration::from_secs(600);

/// A session.
pub(super) struct Session {
    id: String,
    started_ms: i64,
    shell: String,
    control: Control,
    input: mpsc::Sender<Bytes>,
    state: Mutex<State>,
    /// A visitor has made room, come or gone.
    room: Notify,
    /// It is to end.
    unwanted: Notify,
    idle_limit: Duration,
}

struct State {
    picture: Picture,
    size: (u16, u16),
    viewers: BTreeMap<u64, Viewer>,
    numbered: u64,
    /// Who typed last, whose window the terminal fits.
    leader: Option<u64>,
    active_ms: i64,
    /// Since when nobody sees it.
    alone: Option<Instant>,
    end: Option<(End, Instant)>,
}

/// One who sees it.
struct Viewer {
    watch: bool,
    window: (u16, u16),
    queue: VecDeque<Bytes>,
    waiting: usize,
    /// Bytes sent that were not yet shown.
    under_way: u32,
    /// The whole picture is to be sent.
    behind: bool,
    /// What may wait before that happens.
    limit: usize,
    news: News,
    wake: Arc<Notify>,
}

/// What a visitor is to be told besides output.
#[derive(Default)]
struct News {
    viewers: bool,
    size: bool,
    ended: bool,
}

/// A visitor's place in a session, until it is dropped.
pub(super) struct Visit {
    session: Arc<Session>,
    number: u64,
    wake: Arc<Notify>,
}

impl Session {
    /// Starts the user's shell in a new terminal.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn start(
        id: String,
        size: (u16, u16),
        place: Place,
        idle_limit: Duration,
    ) -> io::Result<Arc<Self>> {
        let mut asked = Asked::default();
        asked.set("COLORTERM", "truecolor");
        if ["LANG", "LC_ALL", "LC_CTYPE"].iter().all(|name| std::env::var_os(name).is_none()) {
            // The browser speaks UTF-8, whatever a service manager has left out.
            asked.set("LANG", "C.UTF-8");
        }
        let wanted = Wanted {
            kind: "xterm-256color".to_owned(),
            size: window(size),
            modes: vec![(russh::Pty::IUTF8, 1)],
        };
        let start = Start { what: What::Shell, asked, terminal: Some(wanted), keys: None, place };
        let Running { child, input, output, control, .. } = start.run()?;
        let control = control.ok_or(io::ErrorKind::Unsupported)?;
        let (sender, typed) = mpsc::channel(INPUT_PIECES);
        let state = State {
            picture: Picture::new(size),
            size,
            viewers: BTreeMap::new(),
            numbered: 0,
            leader: None,
            active_ms: now_ms(),
            alone: Some(Instant::now()),
            end: None,
        };
        let session = Arc::new(Self {
            id,
            started_ms: now_ms(),
            shell: process::usual_shell(),
            control,
            input: sender,
            state: Mutex::new(state),
            room: Notify::new(),
            unwanted: Notify::new(),
            idle_limit,
        });
        tokio::spawn(feed(typed, input));
        tokio::spawn(Arc::clone(&session).run(child, output));
        Ok(session)
    }

    /// Carries the program's output until it has ended, or is to.
    async fn run(self: Arc<Self>, mut child: Child, output: Box<dyn AsyncRead + Send + Unpin>) {
        let group = process::group(&child);
        let all_read = AtomicBool::new(false);
        let reading = async {
            self.read(output).await;
            all_read.store(true, Ordering::Relaxed);
            // Nobody has the terminal any more, but the program may go on without.
            std::future::pending::<Infallible>().await
        };
        tokio::pin!(reading);
        let status = tokio::select! {
            biased;
            status = child.wait() => status,
            never = &mut reading => match never {},
            () = self.is_unwanted() => end_of(&mut child, group).await,
        };
        let until = Instant::now() + DRAIN;
        while !all_read.load(Ordering::Relaxed) && Instant::now() < until {
            let _ = timeout(DRAIN / 50, &mut reading).await;
        }
        let end = status.map(|status| process::End::from(status).told()).unwrap_or_default();
        tracing::debug!(session = self.id, ?end, "a terminal's program has ended");
        let mut state = self.lock();
        state.end = Some((end, Instant::now()));
        state.active_ms = now_ms();
        for viewer in state.viewers.values_mut() {
            viewer.news.ended = true;
            viewer.wake.notify_one();
        }
    }

    /// Waits until somebody has ended it, or nobody has seen it for too long.
    async fn is_unwanted(&self) {
        let forgotten = async {
            loop {
                sleep(LOOK.min(self.idle_limit)).await;
                if self.lock().alone.is_some_and(|since| since.elapsed() >= self.idle_limit) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.unwanted.notified() => {}
            () = forgotten => tracing::info!(session = self.id, "nobody has seen a terminal for too long: it ends"),
        }
    }

    async fn read(&self, mut output: Box<dyn AsyncRead + Send + Unpin>) {
        let mut buffer = vec![0; READ];
        let mut burst = 0;
        loop {
            let held = self.has_room().await;
            let Ok(length @ 1..) = output.read(&mut buffer).await else { return };
            self.take(&buffer[..length]);
            burst += length;
            if held {
                burst = 0;
                // Others of this thread get their turn.
                tokio::task::yield_now().await;
            } else if burst >= BURST {
                burst = 0;
                sleep(PAUSE).await;
            }
        }
    }

    /// Waits until some visitor has room. Whether one is there who holds the program back when it has none.
    async fn has_room(&self) -> bool {
        loop {
            let changed = self.room.notified();
            {
                let state = self.lock();
                let mut current = state.viewers.values().filter(|viewer| !viewer.behind).peekable();
                if current.peek().is_none() {
                    return false;
                }
                if current.any(|viewer| viewer.waiting < HIGH) {
                    return true;
                }
            }
            if timeout(HOLD, changed).await.is_err() {
                for viewer in self.lock().viewers.values_mut() {
                    viewer.fall_behind();
                }
            }
        }
    }

    fn take(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let shown = Bytes::from(state.picture.take(bytes));
        if shown.is_empty() {
            return;
        }
        for viewer in state.viewers.values_mut() {
            viewer.push(shown.clone());
        }
    }

    /// Takes a visitor in.
    ///
    /// # Errors
    /// If too many are there.
    pub(super) fn visit(session: &Arc<Self>, watch: bool, window: (u16, u16)) -> Result<Visit, Problem> {
        let wake = Arc::new(Notify::new());
        let number = {
            let mut state = session.lock();
            if state.viewers.len() >= VIEWERS_MAX {
                let message = format!("{VIEWERS_MAX} see this terminal already");
                return Err(Problem { code: code::TOO_MANY.to_owned(), message });
            }
            state.numbered += 1;
            let number = state.numbered;
            let ended = state.end.is_some();
            let viewer = Viewer {
                watch,
                window,
                queue: VecDeque::new(),
                waiting: 0,
                under_way: 0,
                behind: true,
                limit: BEHIND,
                news: News { viewers: false, size: false, ended },
                wake: Arc::clone(&wake),
            };
            state.viewers.insert(number, viewer);
            state.alone = None;
            state.active_ms = now_ms();
            state.count(Some(number));
            if !watch {
                session.lead(&mut state, number);
            }
            number
        };
        session.room.notify_waiters();
        Ok(Visit { session: Arc::clone(session), number, wake })
    }

    /// This visitor types: the terminal fits their window.
    fn lead(&self, state: &mut State, number: u64) {
        state.leader = Some(number);
        let Some(window) = state.viewers.get(&number).map(|viewer| viewer.window) else { return };
        if window == state.size || state.end.is_some() {
            return;
        }
        state.size = window;
        state.picture.resize(window);
        self.control.resize(self::window(window));
        for viewer in state.viewers.values_mut() {
            viewer.news.size = true;
            viewer.wake.notify_one();
        }
    }

    /// As others are told of it.
    pub(super) fn told(&self) -> terminal::Session {
        let foreground = self.control.foreground().and_then(process::name_of);
        let state = self.lock();
        let command = foreground.filter(|_| state.end.is_none()).unwrap_or_else(|| self.shell.clone());
        terminal::Session {
            id: self.id.chars().take(NAME_MAX).collect(),
            command: command.chars().take(COMMAND_MAX).collect(),
            started_ms: self.started_ms,
            active_ms: state.active_ms,
            columns: state.size.0,
            rows: state.size.1,
            viewers: u32::try_from(state.viewers.len()).unwrap_or(u32::MAX),
            ended: state.end.is_some(),
        }
    }

    /// Whether its program has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Whether that is so long ago that nobody comes back for it.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        let long_ago = state.end.as_ref().is_some_and(|(_, at)| at.elapsed() >= KEPT);
        long_ago && state.viewers.is_empty()
    }

    /// Ends it and its programs.
    pub(super) fn end(&self) {
        self.unwanted.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everybody but `except` is told how many there are.
    fn count(&mut self, except: Option<u64>) {
        for (number, viewer) in &mut self.viewers {
            if Some(*number) != except {
                viewer.news.viewers = true;
                viewer.wake.notify_one();
            }
        }
    }
}

impl Viewer {
    fn push(&mut self, bytes: Bytes) {
        if self.behind {
            // The picture has it already.
            self.wake.notify_one();
            return;
        }
        self.waiting += bytes.len();
        self.queue.push_back(bytes);
        if self.waiting > self.limit {
            self.fall_behind();
        }
        self.wake.notify_one();
    }

    fn fall_behind(&mut self) {
        self.queue = VecDeque::new();
        self.waiting = 0;
        self.behind = true;
    }

    /// The next frame of output, as much as may be under way.
    fn output(&mut self, picture: &Picture) -> Option<Vec<u8>> {
        let credit = usize::try_from(CREDIT.saturating_sub(self.under_way)).unwrap_or(usize::MAX);
        if credit == 0 {
            return None;
        }
        if self.behind && picture.is_whole() {
            let whole = Bytes::from(picture.bytes());
            self.behind = false;
            self.waiting = whole.len();
            self.limit = BEHIND + whole.len();
            self.queue.push_back(whole);
        }
        let mut piece = self.queue.pop_front()?;
        let most = credit.min(OUTPUT_MAX);
        if piece.len() > most {
            let rest = piece.split_off(most);
            self.queue.push_front(rest);
        }
        self.waiting -= piece.len();
        if self.queue.is_empty() {
            self.limit = BEHIND;
        }
        self.under_way = self.under_way.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        Some(Told::Output(&piece).encode())
    }
}

impl Visit {
    /// Whose terminal it is.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The next frame for the visitor, once there is one; none after the end.
    pub(super) async fn next(&self) -> Option<Vec<u8>> {
        loop {
            if let Some(next) = self.look() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    /// The next frame, if there is one: none of either kind after the end.
    #[allow(clippy::option_option, reason = "nothing yet, or nothing more")]
    fn look(&self) -> Option<Option<Vec<u8>>> {
        let mut state = self.session.lock();
        let State { picture, viewers, size, end, .. } = &mut *state;
        let count = u32::try_from(viewers.len()).unwrap_or(u32::MAX);
        let Some(viewer) = viewers.get_mut(&self.number) else { return Some(None) };
        // The size comes before what was drawn for it.
        if std::mem::take(&mut viewer.news.size) {
            return Some(Some(Told::Resized { columns: size.0, rows: size.1 }.encode()));
        }
        if std::mem::take(&mut viewer.news.viewers) {
            return Some(Some(Told::Viewers(count).encode()));
        }
        if let Some(frame) = viewer.output(picture) {
            self.session.room.notify_waiters();
            return Some(Some(frame));
        }
        if !viewer.queue.is_empty() || (viewer.behind && picture.is_whole()) {
            return None;
        }
        match end {
            Some((end, _)) if viewer.news.ended => {
                viewer.news.ended = false;
                Some(Some(Told::End(end.clone()).encode()))
            }
            Some(_) => Some(None),
            None => None,
        }
    }

    /// Something was typed.
    pub(super) fn typed(&self, bytes: &[u8]) {
        {
            let mut state = self.session.lock();
            if state.viewers.get(&self.number).is_none_or(|viewer| viewer.watch) {
                return;
            }
            if state.leader != Some(self.number) {
                if is_report(bytes) {
                    return;
                }
                self.session.lead(&mut state, self.number);
            }
            state.active_ms = now_ms();
        }
        for piece in bytes.chunks(INPUT_PIECE) {
            if self.session.input.try_send(Bytes::copy_from_slice(piece)).is_err() {
                tracing::debug!(session = self.session.id, "input that no program reads is lost");
                return;
            }
        }
    }

    /// The visitor's window has another size.
    pub(super) fn resized(&self, window: (u16, u16)) {
        let mut state = self.session.lock();
        let Some(viewer) = state.viewers.get_mut(&self.number) else { return };
        viewer.window = window;
        if !viewer.watch {
            self.session.lead(&mut state, self.number);
        }
    }

    /// So many bytes more were shown.
    pub(super) fn shown(&self, more: u32) {
        let mut state = self.session.lock();
        if let Some(viewer) = state.viewers.get_mut(&self.number) {
            viewer.under_way = viewer.under_way.saturating_sub(more);
            viewer.wake.notify_one();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        {
            let mut state = self.session.lock();
            state.viewers.remove(&self.number);
            state.active_ms = now_ms();
            if state.viewers.is_empty() {
                state.alone = Some(Instant::now());
            }
            state.count(None);
            if state.leader == Some(self.number) {
                state.leader = None;
                // Somebody answers the programs' questions still.
                let next = state.viewers.iter().rfind(|(_, viewer)| !viewer.watch).map(|(n, _)| *n);
                if let Some(next) = next {
                    self.session.lead(&mut state, next);
                }
            }
        }
        self.session.room.notify_waiters();
    }
}

fn window((columns, rows): (u16, u16)) -> Size {
    Size { columns: columns.into(), rows: rows.into(), width: 0, height: 0 }
}

/// Writes what was typed to the program.
async fn feed(mut typed: mpsc::Receiver<Bytes>, mut into: Box<dyn AsyncWrite + Send + Unpin>) {
    while let Some(piece) = typed.recv().await {
        if into.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// Hangs a program up, and kills it if it does not end by that.
async fn end_of(child: &mut Child, group: Group) -> io::Result<std::process::ExitStatus> {
    group.send(Signal::HUP);
    // One that was stopped hears it only when it goes on.
    group.send(Signal::CONT);
    match timeout(FAREWELL, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            group.send(Signal::KILL);
            child.wait().await
        }
    }
}
