//! OpenSSH's configuration file: one marked block of our own in it, everything else left as it is.
//!
//! The file is bytes to us, lines of them: what others wrote there need not be text of any encoding. Our block stands
//! first, since OpenSSH takes the first value that it finds of each setting, and ends with `Match all`, so that what
//! follows is for every host as it was before.

use std::fmt;
use std::ops::Range;

/// A block, by the suffix of the host names that it is for.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The suffix, without its dot.
    pub suffix: String,
    /// Settings that come before ours, each a line.
    pub options: Vec<String>,
    /// The command that carries a connection, and what comes with it, as [`proxy_command`] writes it.
    pub proxy_command: String,
    /// The file of the workspaces' host keys, as [`quoted`] writes it.
    pub known_hosts: String,
}

/// Why a file is left alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Damaged {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} {}", self.line, self.what)
    }
}

/// The file with the block in it: in the place of the earlier one for the same suffix, else before everything.
///
/// # Errors
/// If the markers in the file don't fit together.
pub(crate) fn with(file: &[u8], block: &Block) -> Result<Vec<u8>, Damaged> {
    let place = find(file, &block.suffix)?.unwrap_or(0..0);
    Ok(replaced(file, place, block.text().as_bytes()))
}

/// The file without the block for this suffix.
///
/// # Errors
/// If the markers in the file don't fit together.
pub(crate) fn without(file: &[u8], suffix: &str) -> Result<Vec<u8>, Damaged> {
    let place = find(file, suffix)?.unwrap_or(0..0);
    Ok(replaced(file, place, b""))
}

impl Block {
    fn text(&self) -> String {
        let Self { suffix, proxy_command, known_hosts, .. } = self;
        let mut lines = vec![marker(BEGIN, suffix), format!("Host *.{suffix}")];
        lines.extend(self.options.iter().map(|option| format!("    {option}")));
        lines.push(format!("    ProxyCommand {proxy_command}"));
        lines.push(format!("    UserKnownHostsFile {known_hosts}"));
        lines.push("    GlobalKnownHostsFile /dev/null".to_owned());
        // The file is ours alone, and `warren workspaces trust` has to find a workspace's line in it.
        lines.push("    HashKnownHosts no".to_owned());
        lines.push("    StrictHostKeyChecking accept-new".to_owned());
        // The tunnel has sealed it already: the cheapest cipher that OpenSSH still takes for one.
        lines.push("    Ciphers ^aes256-gcm@openssh.com".to_owned());
        lines.push("Match all".to_owned());
        lines.push(marker(END, suffix));
        lines.join("\n") + "\n"
    }
}

/// How a block begins and ends.
const BEGIN: &str = "# --- begin: written by `warren config-ssh`, changes are lost";
const END: &str = "# --- end: written by `warren config-ssh`";

fn marker(kind: &str, suffix: &str) -> String {
    format!("{kind} (*.{suffix}) ---")
}

/// Where the block for this suffix is.
fn find(file: &[u8], suffix: &str) -> Result<Option<Range<usize>>, Damaged> {
    let (mut found, mut open, mut at) = (None, None, 0);
    for (index, whole) in file.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let (text, from) = (whole.trim_ascii(), at);
        at += whole.len();
        let (ours, is_begin) = (text == marker(BEGIN, suffix).as_bytes(), text.starts_with(BEGIN.as_bytes()));
        match (open, is_begin) {
            (Some(_), true) => return Err(Damaged { line, what: "begins a block inside another one" }),
            (None, true) if ours && found.is_some() => {
                return Err(Damaged { line, what: "begins a second block for the same hosts" });
            }
            (None, true) => open = Some((line, from, ours)),
            (None, false) if text.starts_with(END.as_bytes()) => {
                return Err(Damaged { line, what: "ends a block that has no beginning" });
            }
            (Some((_, from, ours)), false) if text.starts_with(END.as_bytes()) => {
                if ours && text != marker(END, suffix).as_bytes() {
                    return Err(Damaged { line, what: "ends another block than the one that began" });
                }
                if ours {
                    found = Some(from..at);
                }
                open = None;
            }
            _ => {}
        }
    }
    match open {
        Some((line, ..)) => Err(Damaged { line, what: "begins a block that has no end" }),
        None => Ok(found),
    }
}

fn replaced(file: &[u8], place: Range<usize>, by: &[u8]) -> Vec<u8> {
    let (before, after) = (file.get(..place.start), file.get(place.end..));
    [before.unwrap_or_default(), by, after.unwrap_or_default()].concat()
}

/// A value as OpenSSH reads it: in quotes, with its percent signs and quotes kept from meaning something.
///
/// Returns nothing if there is no way to write it.
pub(crate) fn quoted(value: &str) -> Option<String> {
    // In such a value `${NAME}` is a variable, which nothing escapes.
    if value.contains(['\n', '\r', '\0', '"', '\\']) || value.contains("${") {
        return None;
    }
    Some(format!("\"{}\"", value.replace('%', "%%")))
}

/// A command line for the shell that OpenSSH starts, with its percent signs kept from meaning something; `%h` after it
/// is the host's name.
///
/// Returns nothing if there is no way to write it in one line.
pub(crate) fn proxy_command(words: &[String]) -> Option<String> {
    let words: Option<Vec<_>> = words.iter().map(|word| shell_word(word)).collect();
    Some(format!("{} '%h'", words?.join(" ").replace('%', "%%")))
}

fn shell_word(word: &str) -> Option<String> {
    if word.contains(['\n', '\r', '\0']) {
        return None;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:@,+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return Some(word.to_owned());
    }
    Some(format!("'{}'", word.replace('\'', r"'\''")))
}

/// How one text became another, as a unified diff; nothing if they are the same. What changes is one place.
pub(crate) fn diff(name: &str, before: &[u8], after: &[u8]) -> String {
    const CONTEXT: usize = 3;
    if before == after {
        return String::new();
    }
    let (old, new) = (lines(before), lines(after));
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(CONTEXT);
    let hunk = |all: &[&[u8]]| {
        let count = (all.len() - tail + CONTEXT).min(all.len()) - from;
        format!("{},{count}", if count == 0 { from } else { from + 1 })
    };
    let mut out = format!("--- {name}\n+++ {name}\n@@ -{} +{} @@\n", hunk(&old), hunk(&new));
    let mut put = |sign: char, lines: &[&[u8]]| {
        for line in lines {
            out.push(sign);
            out.push_str(&String::from_utf8_lossy(line));
            if !line.ends_with(b"\n") {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    put(' ', old.get(from..same).unwrap_or_default());
    put('-', old.get(same..old.len() - tail).unwrap_or_default());
    put('+', new.get(same..new.len() - tail).unwrap_or_default());
    let end = (old.len() - tail + CONTEXT).min(old.len());
    put(' ', old.get(old.len() - tail..end).unwrap_or_default());
    out
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(suffix: &str) -> Block {
        Block {
            suffix: suffix.into(),
            options: vec!["ForwardAgent yes".into()],
            proxy_command: proxy_command(&["/opt/my tools/100%/warren".into(), "ssh".into()]).unwrap(),
            known_hosts: quoted("/home/a b/known_hosts").unwrap(),
        }
    }

    /// What people and programs write there, and what nobody should.
    fn files() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(b"Host *".to_vec()),
            Just(b"Match user root".to_vec()),
            Just(b"  IdentityFile ~/.ssh/id".to_vec()),
            Just(b"# --- a remark ---".to_vec()),
            Just(b"Match all".to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ];
        let end = prop_oneof![Just(&b"\n"[..]), Just(&b"\r\n"[..]), Just(&b"\n\n"[..]), Just(&b""[..])];
        prop::collection::vec((line, end), 0..12)
            .prop_map(|lines| lines.iter().flat_map(|(line, end)| [line, *end].concat()).collect())
    }

    proptest! {
        #[test]
        fn a_block_comes_and_goes_and_leaves_every_other_byte(file in files(), other in files()) {
            let ours = with(&file, &block("warren")).unwrap();
            prop_assert_eq!(&with(&ours, &block("warren")).unwrap(), &ours, "twice is once");
            prop_assert_eq!(&without(&ours, "warren").unwrap(), &file);
            let both = with(&ours, &block("work")).unwrap();
            prop_assert_eq!(&without(&both, "work").unwrap(), &ours);
            // Wherever a person has moved it.
            let mut moved = other;
            moved.push(b'\n');
            let length = moved.len();
            moved.extend_from_slice(&ours);
            let changed = Block { options: vec![], ..block("warren") };
            let changed = with(&moved, &changed).unwrap();
            prop_assert_eq!(changed.get(..length).unwrap(), moved.get(..length).unwrap());
            prop_assert!(changed.ends_with(&file));
        }
    }

    #[test]
    fn blocks_that_do_not_fit_together_are_left_alone() {
        let (begin, end) = (marker(BEGIN, "warren"), marker(END, "warren"));
        let (other_begin, other_end) = (marker(BEGIN, "work"), marker(END, "work"));
        let said = [
            format!("Host *\n{begin}\nHost x\n"),
            format!("Host *\n{end}\n"),
            format!("{begin}\n{begin}\n{end}\n"),
            format!("{begin}\n{end}\n{begin}\n{end}\n"),
            format!("{begin}\n{other_end}\n"),
            format!("{other_begin}\nHost x\n"),
        ]
        .map(|file| with(file.as_bytes(), &block("warren")).unwrap_err().to_string());
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_block_reads_well_and_a_change_is_shown() {
        let before = b"User me\nHost a\n  Port 1\nHost *\n  IdentityFile ~/.ssh/\xff";
        let after = with(before, &block("warren")).unwrap();
        let changed = with(&after, &Block { options: vec![], ..block("warren") }).unwrap();
        insta::assert_snapshot!(
            [
                diff("config", before, &after),
                diff("config", &after, &changed),
                diff("config", b"", b"a\n"),
                diff("config", b"a", b""),
                diff("config", b"a", b"a"),
            ]
            .join("=\n")
        );
    }

    #[test]
    fn what_cannot_be_written_is_not() {
        assert_eq!(quoted("a\nb"), None);
        assert_eq!(quoted("/${HOME}/x"), None);
        assert_eq!(proxy_command(&["a\nb".into()]), None);
        assert_eq!(proxy_command(&["it's".into()]).unwrap(), r"'it'\''s' '%h'");
    }
}
