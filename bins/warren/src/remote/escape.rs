//! What a person types for this side and not for the workspace: `~.` and the like, at the start of a line.

/// What is typed at the start of a line to be heard here, unless another was chosen.
pub(crate) const TILDE: u8 = b'~';
/// Control and Z.
const CONTROL_Z: u8 = 0x1a;

/// What a person wants of this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// To end the session, whatever the workspace says.
    Leave,
    /// To do something else, and come back.
    Suspend,
    /// To be told what there is.
    Help,
}

/// Watches for the escape character.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Escape {
    character: Option<u8>,
    /// The next character begins a line.
    begins: bool,
    /// The escape character was typed; what it means depends on the next one.
    heard: bool,
}

impl Escape {
    /// Watches for this character; none passes all on.
    pub(crate) const fn new(character: Option<u8>) -> Self {
        Self { character, begins: true, heard: false }
    }

    /// Reads what was typed up to the first wish: how many bytes that took, and the wish. What is for the workspace goes
    /// into `out`.
    pub(crate) fn read(&mut self, typed: &[u8], out: &mut Vec<u8>) -> (usize, Option<Wish>) {
        let Some(character) = self.character else {
            out.extend_from_slice(typed);
            return (typed.len(), None);
        };
        for (index, &byte) in typed.iter().enumerate() {
            if std::mem::take(&mut self.heard) {
                let wish = match byte {
                    b'.' => Some(Wish::Leave),
                    b'?' => Some(Wish::Help),
                    CONTROL_Z => Some(Wish::Suspend),
                    _ => None,
                };
                if wish.is_some() {
                    self.begins = true;
                    return (index + 1, wish);
                }
                // Twice means itself, and with anything else it meant nothing.
                out.push(character);
                if byte != character {
                    out.push(byte);
                }
            } else if self.begins && byte == character {
                self.heard = true;
                continue;
            } else {
                out.push(byte);
            }
            self.begins = matches!(byte, b'\r' | b'\n');
        }
        (typed.len(), None)
    }
}

/// What there is, for a person on a terminal in raw mode.
pub(crate) fn help(character: u8) -> String {
    let e = char::from(character);
    format!(
        "{e}?\r\nAt the start of a line:\r\n {e}.   ends the session\r\n {e}^Z  suspends warren\r\n \
         {e}?   shows this\r\n {e}{e}   types {e}\r\n"
    )
}

/// The escape character as it is named on the command line: itself, `^X` for a control character, or `none`.
pub(crate) fn named(text: &str) -> Result<Option<u8>, String> {
    match *text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(Some(byte)),
        [b'^', byte] if byte.is_ascii() && (0x40..0x80).contains(&byte) => Ok(Some(byte & 0x1f)),
        _ if text == "none" => Ok(None),
        _ => Err("it is one character, ^ and a letter, or none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What reaches the workspace and what is wished, of what is typed in pieces.
    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Wish>) {
        let (mut escape, mut out, mut wishes) = (Escape::new(Some(TILDE)), Vec::new(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (took, wish) = escape.read(rest, &mut out);
                wishes.extend(wish);
                rest = &rest[took..];
            }
        }
        (out, wishes)
    }

    #[test]
    fn the_escape_is_heard_at_the_start_of_a_line_alone() {
        let through = |text: &str| (text.as_bytes().to_vec(), vec![]);
        assert_eq!(typed(&[b"~."]), (vec![], vec![Wish::Leave]));
        assert_eq!(typed(&[b"ls\r~."]), (b"ls\r".to_vec(), vec![Wish::Leave]));
        assert_eq!(typed(&[b"ls\n", b"~", b"."]), (b"ls\n".to_vec(), vec![Wish::Leave]));
        assert_eq!(typed(&[b"ls ~.\r"]), through("ls ~.\r"));
        assert_eq!(typed(&[b"~~."]), (b"~.".to_vec(), vec![]));
        assert_eq!(typed(&[b"~/bin\r"]), through("~/bin\r"));
        assert_eq!(typed(&[b"~\r~."]), (b"~\r".to_vec(), vec![Wish::Leave]));
        assert_eq!(typed(&[b"~?~?x~?"]), (b"x~?".to_vec(), vec![Wish::Help, Wish::Help]));
        assert_eq!(typed(&[b"\r~\x1a~."]), (b"\r".to_vec(), vec![Wish::Suspend, Wish::Leave]));
    }

    #[test]
    fn characters_are_named_as_openssh_names_them() {
        assert_eq!(named("~"), Ok(Some(TILDE)));
        assert_eq!(named("^]"), Ok(Some(0x1d)));
        assert_eq!(named("none"), Ok(None));
        for wrong in ["", "ab", "^", "ä", "^ä"] {
            assert_eq!(named(wrong).is_ok(), wrong == "^", "{wrong}");
        }
    }

    proptest! {
        /// Without the escape character all is for the workspace, in whatever pieces it comes.
        #[test]
        fn everything_else_passes(pieces in prop::collection::vec("[^~]*", 0..10)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            prop_assert_eq!(typed(&pieces), (pieces.concat(), vec![]));
        }

        /// A switched-off escape passes everything.
        #[test]
        fn nothing_is_heard_when_it_is_off(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            prop_assert_eq!(Escape::new(None).read(&text, &mut out), (text.len(), None));
            prop_assert_eq!(out, text);
        }
    }
}
