//! The person's own terminal: what it is, and that it is as it was when we leave.

use crate::output;
use proto_core::stream::exec::{Size, Terminal};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcgetwinsize, tcsetattr,
};
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

/// The size of a terminal that nobody sees.
const UNSEEN: Size = Size { columns: 80, rows: 24, width: 0, height: 0 };

/// The terminal that a program in the workspace is to have: like this one.
pub(crate) fn wanted() -> Terminal {
    let modes = tcgetattr(std::io::stdin()).map(|settings| modes(&settings)).unwrap_or_default();
    Terminal { kind: std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()), size: size(), modes }
}

/// The size of the terminal that this program is on.
pub(crate) fn size() -> Size {
    let size = tcgetwinsize(std::io::stdin())
        .or_else(|_| tcgetwinsize(std::io::stdout()))
        .or_else(|_| tcgetwinsize(std::io::stderr()));
    match size {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
            width: size.ws_xpixel.into(),
            height: size.ws_ypixel.into(),
        },
        _ => UNSEEN,
    }
}

/// The terminal passes on every key, until this is dropped.
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Standard input's, if it is one.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let terminal = input.as_fd().try_clone_to_owned()?;
        let raw = Self { before: tcgetattr(&terminal)?, terminal };
        raw.again()?;
        Ok(Some(raw))
    }

    /// Passes on every key again, after [`Self::leave`].
    pub(crate) fn again(&self) -> std::io::Result<()> {
        let mut settings = self.before.clone();
        settings.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Now, &settings)?;
        output::raw(true);
        Ok(())
    }

    /// Makes it as it was.
    pub(crate) fn leave(&self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        output::raw(false);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A code that switches a special character off, in the protocol.
const NO_CHARACTER: u32 = 255;

/// The modes of a terminal, by the opcodes of RFC 4254, section 8.
fn modes(settings: &Termios) -> Vec<(u8, u32)> {
    let characters = CHARACTERS.iter().map(|&(code, index)| {
        let character = settings.special_codes[index];
        (code, if character == 0 { NO_CHARACTER } else { character.into() })
    });
    let input = INPUT.iter().map(|&(code, flag)| (code, settings.input_modes.contains(flag)));
    let local = LOCAL.iter().map(|&(code, flag)| (code, settings.local_modes.contains(flag)));
    let output = OUTPUT.iter().map(|&(code, flag)| (code, settings.output_modes.contains(flag)));
    let size = settings.control_modes & ControlModes::CSIZE;
    let control = [
        (90, size == ControlModes::CS7),
        (91, size == ControlModes::CS8),
        (92, settings.control_modes.contains(ControlModes::PARENB)),
        (93, settings.control_modes.contains(ControlModes::PARODD)),
    ];
    let flags = input.chain(local).chain(output).chain(control).map(|(code, on)| (code, u32::from(on)));
    let speeds = [(128, settings.input_speed()), (129, settings.output_speed())];
    characters.chain(flags).chain(speeds).collect()
}

const CHARACTERS: &[(u8, SpecialCodeIndex)] = &[
    (1, SpecialCodeIndex::VINTR),
    (2, SpecialCodeIndex::VQUIT),
    (3, SpecialCodeIndex::VERASE),
    (4, SpecialCodeIndex::VKILL),
    (5, SpecialCodeIndex::VEOF),
    (6, SpecialCodeIndex::VEOL),
    (7, SpecialCodeIndex::VEOL2),
    (8, SpecialCodeIndex::VSTART),
    (9, SpecialCodeIndex::VSTOP),
    (10, SpecialCodeIndex::VSUSP),
    (12, SpecialCodeIndex::VREPRINT),
    (13, SpecialCodeIndex::VWERASE),
    (14, SpecialCodeIndex::VLNEXT),
    (18, SpecialCodeIndex::VDISCARD),
];

const INPUT: &[(u8, InputModes)] = &[
    (30, InputModes::IGNPAR),
    (31, InputModes::PARMRK),
    (32, InputModes::INPCK),
    (33, InputModes::ISTRIP),
    (34, InputModes::INLCR),
    (35, InputModes::IGNCR),
    (36, InputModes::ICRNL),
    (38, InputModes::IXON),
    (39, InputModes::IXANY),
    (40, InputModes::IXOFF),
    (41, InputModes::IMAXBEL),
    #[cfg(target_os = "linux")]
    (42, InputModes::IUTF8),
];

const LOCAL: &[(u8, LocalModes)] = &[
    (50, LocalModes::ISIG),
    (51, LocalModes::ICANON),
    (53, LocalModes::ECHO),
    (54, LocalModes::ECHOE),
    (55, LocalModes::ECHOK),
    (56, LocalModes::ECHONL),
    (57, LocalModes::NOFLSH),
    (58, LocalModes::TOSTOP),
    (59, LocalModes::IEXTEN),
    (60, LocalModes::ECHOCTL),
    (61, LocalModes::ECHOKE),
    (62, LocalModes::PENDIN),
];

const OUTPUT: &[(u8, OutputModes)] = &[
    (70, OutputModes::OPOST),
    (72, OutputModes::ONLCR),
    (73, OutputModes::OCRNL),
    (74, OutputModes::ONOCR),
    (75, OutputModes::ONLRET),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_told_by_the_codes_of_ssh() {
        let terminal = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        let mut settings = tcgetattr(&terminal).unwrap();
        settings.special_codes[SpecialCodeIndex::VINTR] = 7;
        settings.special_codes[SpecialCodeIndex::VQUIT] = 0;
        settings.local_modes.remove(LocalModes::ECHO);
        settings.output_modes.insert(OutputModes::ONLCR);
        let told: std::collections::BTreeMap<_, _> = modes(&settings).into_iter().collect();
        assert_eq!([1, 2, 53, 72, 91].map(|code| told[&code]), [7, NO_CHARACTER, 0, 1, 1]);
        assert!(told[&129] > 0);
    }
}
