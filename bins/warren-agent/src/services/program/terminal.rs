//! Pseudo-terminals: their size, and the modes that a visitor's own terminal has.

use pty_process::{Pts, Pty};
use russh::Pty as Mode;
use rustix::process::Pid;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcgetpgrp, tcsetattr, tcsetwinsize,
};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A code that switches a special character off, in the protocol.
const NO_CHARACTER: u32 = 255;

/// The terminal that a visitor asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its kind, as in `TERM`.
    pub kind: String,
    /// Its size.
    pub size: Size,
    /// How it behaves.
    pub modes: Vec<(Mode, u32)>,
}

/// The size of a terminal, as it comes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    /// In characters.
    pub columns: u32,
    /// In characters.
    pub rows: u32,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// A pseudo-terminal: the end for programs, and ours.
pub(crate) struct Terminal {
    /// Ours, for data.
    pub ours: Pty,
    /// What programs are started with.
    pub theirs: Pts,
    /// Ours, to change it.
    pub control: Control,
    /// Its file.
    pub path: PathBuf,
}

/// What changes a terminal under way.
pub(crate) struct Control(OwnedFd);

impl Terminal {
    /// A new one as wanted.
    pub(crate) fn open(wanted: &Wanted) -> io::Result<Self> {
        let (ours, theirs) = pty_process::open().map_err(io_error)?;
        let path = rustix::pty::ptsname(&ours, Vec::new())?;
        let control = Control(ours.as_fd().try_clone_to_owned()?);
        let mut settings = tcgetattr(&theirs)?;
        for (mode, value) in &wanted.modes {
            set(&mut settings, *mode, *value);
        }
        tcsetattr(&theirs, OptionalActions::Now, &settings)?;
        control.resize(wanted.size);
        Ok(Self { ours, theirs, control, path: OsString::from_vec(path.into_bytes()).into() })
    }
}

impl Control {
    /// Makes it as large as the visitor's; its programs are told by a signal.
    pub(crate) fn resize(&self, size: Size) {
        let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = rustix::termios::Winsize {
            ws_row: cells(size.rows),
            ws_col: cells(size.columns),
            ws_xpixel: cells(size.width),
            ws_ypixel: cells(size.height),
        };
        let _ = tcsetwinsize(&self.0, size);
    }

    /// The group of programs that has the terminal now.
    pub(crate) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.0).ok()
    }

    /// The character by which a program that reads lines learns that there are no more, if one reads lines now.
    pub(crate) fn end_of_input(&self) -> Option<u8> {
        let settings = tcgetattr(&self.0).ok()?;
        let character = settings.special_codes[SpecialCodeIndex::VEOF];
        (settings.local_modes.contains(LocalModes::ICANON) && character != 0).then_some(character)
    }
}

/// The system's error in one of the library's.
pub(crate) fn io_error(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(error) => error.into(),
        error => io::Error::other(error.to_string()),
    }
}

/// Sets one mode of RFC 4254 (section 8); those that this system has not are left out.
fn set(settings: &mut Termios, mode: Mode, value: u32) {
    if let Some(index) = character(mode) {
        settings.special_codes[index] =
            if value == NO_CHARACTER { 0 } else { u8::try_from(value).unwrap_or(0) };
        return;
    }
    let on = value != 0;
    if let Some(flag) = input(mode) {
        settings.input_modes.set(flag, on);
    } else if let Some(flag) = local(mode) {
        settings.local_modes.set(flag, on);
    } else if let Some(flag) = output(mode) {
        settings.output_modes.set(flag, on);
    } else {
        match mode {
            Mode::CS7 if on => {
                settings.control_modes.remove(ControlModes::CSIZE);
                settings.control_modes.insert(ControlModes::CS7);
            }
            Mode::CS8 if on => {
                settings.control_modes.remove(ControlModes::CSIZE);
                settings.control_modes.insert(ControlModes::CS8);
            }
            Mode::PARENB => settings.control_modes.set(ControlModes::PARENB, on),
            Mode::PARODD => settings.control_modes.set(ControlModes::PARODD, on),
            Mode::TTY_OP_ISPEED => _ = settings.set_input_speed(value),
            Mode::TTY_OP_OSPEED => _ = settings.set_output_speed(value),
            _ => {}
        }
    }
}

fn character(mode: Mode) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Mode::VINTR => SpecialCodeIndex::VINTR,
        Mode::VQUIT => SpecialCodeIndex::VQUIT,
        Mode::VERASE => SpecialCodeIndex::VERASE,
        Mode::VKILL => SpecialCodeIndex::VKILL,
        Mode::VEOF => SpecialCodeIndex::VEOF,
        Mode::VEOL => SpecialCodeIndex::VEOL,
        Mode::VEOL2 => SpecialCodeIndex::VEOL2,
        Mode::VSTART => SpecialCodeIndex::VSTART,
        Mode::VSTOP => SpecialCodeIndex::VSTOP,
        Mode::VSUSP => SpecialCodeIndex::VSUSP,
        Mode::VREPRINT => SpecialCodeIndex::VREPRINT,
        Mode::VWERASE => SpecialCodeIndex::VWERASE,
        Mode::VLNEXT => SpecialCodeIndex::VLNEXT,
        Mode::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Mode) -> Option<InputModes> {
    Some(match mode {
        Mode::IGNPAR => InputModes::IGNPAR,
        Mode::PARMRK => InputModes::PARMRK,
        Mode::INPCK => InputModes::INPCK,
        Mode::ISTRIP => InputModes::ISTRIP,
        Mode::INLCR => InputModes::INLCR,
        Mode::IGNCR => InputModes::IGNCR,
        Mode::ICRNL => InputModes::ICRNL,
        #[cfg(target_os = "linux")]
        Mode::IUCLC => InputModes::IUCLC,
        Mode::IXON => InputModes::IXON,
        Mode::IXANY => InputModes::IXANY,
        Mode::IXOFF => InputModes::IXOFF,
        Mode::IMAXBEL => InputModes::IMAXBEL,
        #[cfg(target_os = "linux")]
        Mode::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(mode: Mode) -> Option<LocalModes> {
    Some(match mode {
        Mode::ISIG => LocalModes::ISIG,
        Mode::ICANON => LocalModes::ICANON,
        #[cfg(target_os = "linux")]
        Mode::XCASE => LocalModes::XCASE,
        Mode::ECHO => LocalModes::ECHO,
        Mode::ECHOE => LocalModes::ECHOE,
        Mode::ECHOK => LocalModes::ECHOK,
        Mode::ECHONL => LocalModes::ECHONL,
        Mode::NOFLSH => LocalModes::NOFLSH,
        Mode::TOSTOP => LocalModes::TOSTOP,
        Mode::IEXTEN => LocalModes::IEXTEN,
        Mode::ECHOCTL => LocalModes::ECHOCTL,
        Mode::ECHOKE => LocalModes::ECHOKE,
        Mode::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output(mode: Mode) -> Option<OutputModes> {
    Some(match mode {
        Mode::OPOST => OutputModes::OPOST,
        #[cfg(target_os = "linux")]
        Mode::OLCUC => OutputModes::OLCUC,
        Mode::ONLCR => OutputModes::ONLCR,
        Mode::OCRNL => OutputModes::OCRNL,
        Mode::ONOCR => OutputModes::ONOCR,
        Mode::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 100, rows: 30, width: 0, height: 0 };

    #[tokio::test]
    async fn a_terminal_is_as_wanted() {
        let modes = vec![
            (Mode::ECHO, 0),
            (Mode::VINTR, 7),
            (Mode::VQUIT, NO_CHARACTER),
            (Mode::ONLCR, 0),
            (Mode::IUTF8, 1),
            (Mode::TTY_OP_OSPEED, 38_400),
        ];
        let terminal = Terminal::open(&Wanted { kind: "xterm".into(), size: SIZE, modes }).unwrap();
        let settings = tcgetattr(&terminal.theirs).unwrap();
        assert!(!settings.local_modes.contains(LocalModes::ECHO));
        assert!(!settings.output_modes.contains(OutputModes::ONLCR));
        assert!(settings.input_modes.contains(InputModes::IUTF8));
        assert_eq!(settings.special_codes[SpecialCodeIndex::VINTR], 7);
        assert_eq!(settings.special_codes[SpecialCodeIndex::VQUIT], 0);
        assert_eq!(settings.output_speed(), 38_400);
        let size = rustix::termios::tcgetwinsize(&terminal.theirs).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (100, 30));
        assert!(terminal.path.starts_with("/dev/pts"), "{}", terminal.path.display());
    }

    #[tokio::test]
    async fn resizing_and_the_end_of_input_follow_the_terminal() {
        let wanted = Wanted { kind: "xterm".into(), size: SIZE, modes: vec![(Mode::VEOF, 5)] };
        let terminal = Terminal::open(&wanted).unwrap();
        terminal.control.resize(Size { columns: 70_000, rows: 2, width: 8, height: 9 });
        let size = rustix::termios::tcgetwinsize(&terminal.theirs).unwrap();
        assert_eq!((size.ws_col, size.ws_row, size.ws_ypixel), (u16::MAX, 2, 9));
        assert_eq!(terminal.control.end_of_input(), Some(5));
        let mut raw = tcgetattr(&terminal.theirs).unwrap();
        raw.make_raw();
        tcsetattr(&terminal.theirs, OptionalActions::Now, &raw).unwrap();
        assert_eq!(terminal.control.end_of_input(), None);
    }
}
