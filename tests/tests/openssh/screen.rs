//! A terminal as a person has one.

use super::Result;
use super::workspace::{Ends, PATIENCE};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What a shell says at any moment: that it takes what is pasted in brackets.
const BRACKETS: &str = "\u{1b}[?2004h";

/// The text without what a terminal does not show by itself.
pub(crate) fn plain(text: &str) -> String {
    text.replace(BRACKETS, "").replace('\r', "")
}

/// A person's terminal, with a program on it.
pub(crate) struct Screen {
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    pub(crate) program: Ends,
    /// The end for programs, so that it stays when they have left.
    theirs: OwnedFd,
}

impl Screen {
    /// Starts a program on a terminal of this size.
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let terminal = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?);
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let theirs = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs.try_clone()?);
        let screen = Self {
            keyboard: terminal.try_clone()?,
            shown: Arc::default(),
            // `setsid --ctty` is what makes it the terminal of what is started.
            program: Ends(command.spawn()?),
            theirs,
        };
        screen.resize(columns, rows)?;
        drop(command);
        let (shown, mut terminal) = (screen.shown.clone(), terminal);
        std::thread::spawn(move || {
            let mut some = [0; 4_096];
            while let Ok(read @ 1..) = terminal.read(&mut some) {
                shown.lock().map(|mut shown| shown.extend_from_slice(&some[..read])).unwrap_or(());
            }
        });
        Ok(screen)
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.keyboard, size)?)
    }

    pub(crate) fn types(&mut self, text: &str) -> Result {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    pub(crate) fn text(&self) -> String {
        self.shown.lock().map(|shown| String::from_utf8_lossy(&shown).into_owned()).unwrap_or_default()
    }

    /// Waits until this is shown, and clears the screen.
    pub(crate) fn shows(&self, wanted: &str) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let text = self.text();
            if text.contains(wanted) {
                self.shown.lock().map(|mut shown| shown.clear()).unwrap_or(());
                return Ok(text);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(format!("{wanted:?} was not shown, but: {}", self.text()).into())
    }

    /// How the terminal behaves.
    pub(crate) fn settings(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.theirs)?)
    }
}
