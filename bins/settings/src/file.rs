//! A settings file: values by key, as clap would read them from a flag, and the lines they stand on.

use crate::{CONFIG, Fault, io_words, nearest};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Id};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file, or none.
#[derive(Default, Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// By table (none for the file's head) and key.
    entries: BTreeMap<(Option<String>, String), Entry>,
}

#[derive(Debug)]
struct Entry {
    words: Vec<String>,
    line: usize,
}

impl File {
    /// Reads the file, which must be there.
    pub(crate) fn read(command: &Command, path: &Path) -> Result<Self, Fault> {
        let text = std::fs::read_to_string(path).map_err(|error| Fault {
            code: "CONFIG_UNREADABLE",
            message: format!("can't read the settings file {}: {}", path.display(), io_words(&error)),
            hint: "check the path and its permissions, or leave `--config` out to start with the defaults"
                .to_owned(),
        })?;
        Reader { command, path, text: &text }.read()
    }

    /// Reads the file if there is one.
    pub(crate) fn read_if_there(command: &Command, path: &Path) -> Result<Self, Fault> {
        match path.try_exists() {
            Ok(false) => Ok(Self::default()),
            _ => Self::read(command, path),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The line of a key that stands in no table.
    pub(crate) fn line_of(&self, key: &str) -> Option<usize> {
        self.entries.get(&(None, key.to_owned())).map(|entry| entry.line)
    }

    /// `command` with this file's values as its defaults; `given` is what was set by flags and variables.
    pub(crate) fn under(&self, command: Command, given: &ArgMatches) -> Command {
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        let command = self.under_in(None, command, given);
        names.into_iter().fold(command, |command, name| {
            let given = given.subcommand_matches(&name);
            command.mut_subcommand(&name, |sub| match given {
                Some(given) => self.under_in(Some(&name), sub, given),
                None => sub,
            })
        })
    }

    fn under_in(&self, table: Option<&str>, command: Command, given: &ArgMatches) -> Command {
        let built = {
            let mut built = command.clone();
            built.build();
            built
        };
        let entry = |arg: &Arg| key(arg).and_then(|key| self.entries.get(&(table.map(str::to_owned), key)));
        // Of a group that must be given, clap counts no default: what stands in the file would not be enough.
        let from_file = |id: &Id| built.get_arguments().any(|arg| arg.get_id() == id && entry(arg).is_some());
        let enough: Vec<Id> = built
            .get_groups()
            .filter(|group| group.is_required_set() && group.get_args().any(from_file))
            .map(|group| group.get_id().clone())
            .collect();
        let command =
            enough.iter().fold(command, |command, id| command.mut_group(id, |group| group.required(false)));
        command.mut_args(|arg| {
            let entry = entry(&arg);
            // Two ways of saying one thing: what a flag or a variable says beats the other way in the file.
            let beaten = rivals(&built, &arg).any(|other| is_given(given, other.get_id().as_str()));
            match entry {
                Some(entry) if !beaten => arg.required(false).default_values(entry.words.clone()),
                _ => arg,
            }
        })
    }

    /// The fault behind clap's refusal, if it refuses one of this file's values.
    pub(crate) fn fault(&self, command: &Command, given: &ArgMatches, error: &clap::Error) -> Option<Fault> {
        if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
            return None;
        }
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let value = text(ContextKind::InvalidValue)?;
        let flag = text(ContextKind::InvalidArg)?;
        let key = flag.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default().to_owned();
        let tables = [given.subcommand_name().map(str::to_owned), None];
        let (table, entry) = tables
            .into_iter()
            .find_map(|table| Some((table.clone(), self.entries.get(&(table, key.clone()))?)))
            .filter(|(_, entry)| entry.words.contains(&value))?;
        let reason = core::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
        let possible = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(all)) if !all.is_empty() => {
                format!("it takes {}", all.join(", "))
            }
            _ => {
                let sub = table.map_or_else(String::new, |table| format!(" {table}"));
                format!("`{}{sub} --help` says what {key} takes", command.get_name())
            }
        };
        let (path, line) = (self.path.display(), entry.line);
        let message =
            format!("the settings file {path}, line {line}: \"{value}\" will not do for {key}{reason}");
        Some(Fault { code: "CONFIG_INVALID", message, hint: possible })
    }
}

/// The arguments that may not be given together with this one, whichever of the two says so.
fn rivals<'a>(command: &'a Command, arg: &'a Arg) -> impl Iterator<Item = &'a Arg> {
    let conflict =
        |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id());
    command.get_arguments().filter(move |other| conflict(arg, other) || conflict(other, arg))
}

/// Whether a flag or a variable says it; false for what this part of the command does not know.
fn is_given(given: &ArgMatches, id: &str) -> bool {
    let known = given.try_contains_id(id).is_ok();
    known && matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// An argument's key in the file, if it may stand there: whatever has a variable, but the file itself.
fn key(arg: &Arg) -> Option<String> {
    let may = arg.get_env().is_some() && arg.get_id() != CONFIG;
    arg.get_long().filter(|_| may).map(str::to_owned)
}

fn keys(command: &Command) -> Vec<String> {
    command.get_arguments().filter_map(key).collect()
}

/// What reads a file for a command.
struct Reader<'a> {
    command: &'a Command,
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn read(&self) -> Result<File, Fault> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let what = error.message().lines().next().unwrap_or("not TOML").to_owned();
            let example = keys(self.command).into_iter().next().unwrap_or_else(|| "key".to_owned());
            let hint = format!("a line looks like `{example} = \"value\"`");
            self.wrong(error.span().map(|span| span.start), &what, hint)
        })?;
        let mut file = File { path: self.path.to_owned(), entries: BTreeMap::new() };
        for (name, value) in table.get_ref() {
            let sub = self.command.get_subcommands().find(|sub| sub.get_name() == name.get_ref().as_ref());
            match (sub, value.get_ref()) {
                (Some(sub), DeValue::Table(inner)) => {
                    for (key, value) in inner {
                        self.take(&mut file, Some(sub), key.get_ref(), value)?;
                    }
                }
                _ => self.take(&mut file, None, name.get_ref(), value)?,
            }
        }
        Ok(file)
    }

    fn take(
        &self,
        file: &mut File,
        sub: Option<&Command>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Fault> {
        let at = value.span().start;
        let known = keys(sub.unwrap_or(self.command));
        if !known.iter().any(|name| name == key) {
            return Err(self.unknown(sub, key, known, at));
        }
        let Some(words) = words(value.get_ref()) else {
            let hint = "write it as a string, a number, true or false, or a list of strings";
            return Err(self.wrong(Some(at), &format!("\"{key}\" has no plain value"), hint.to_owned()));
        };
        let entry = Entry { words, line: self.line(at) };
        file.entries.insert((sub.map(|sub| sub.get_name().to_owned()), key.to_owned()), entry);
        Ok(())
    }

    fn unknown(&self, sub: Option<&Command>, key: &str, known: Vec<String>, at: usize) -> Fault {
        let program = self.command.get_name();
        let tables = self.command.get_subcommands().filter(|sub| !keys(sub).is_empty());
        let near = match sub {
            Some(_) => nearest(key, known),
            None => nearest(key, known.into_iter().chain(tables.map(|sub| sub.get_name().to_owned()))),
        };
        let (place, help) = match sub {
            Some(sub) => {
                (format!(" in [{}]", sub.get_name()), format!("{program} {} --help", sub.get_name()))
            }
            None => (String::new(), format!("{program} --help")),
        };
        let hint = match near.first() {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("`{help}` lists the settings; here they have no dashes in front"),
        };
        self.wrong(Some(at), &format!("there is no setting \"{key}\"{place}"), hint)
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
    }

    fn wrong(&self, at: Option<usize>, what: &str, hint: String) -> Fault {
        let place = at.map(|at| format!(", line {}", self.line(at))).unwrap_or_default();
        let message = format!("the settings file {}{place}: {what}", self.path.display());
        Fault { code: "CONFIG_INVALID", message, hint }
    }
}

/// A TOML value as it would be written on a command line.
fn words(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::String(text) => Some(vec![text.as_ref().to_owned()]),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| vec![number.to_string()])
        }
        DeValue::Float(number) => Some(vec![number.as_str().to_owned()]),
        DeValue::Boolean(yes) => Some(vec![yes.to_string()]),
        DeValue::Array(all) => all
            .iter()
            .map(|one| match one.get_ref() {
                DeValue::Array(_) => None,
                one => words(one).and_then(|mut w| w.pop()),
            })
            .collect(),
        _ => None,
    }
}
