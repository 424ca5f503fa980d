//! Man pages, made from the same declarations as `--help`.

use crate::{Fault, Stop, io_words};
use clap::Command;
use clap_mangen::Man;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// What a packager says, as the first argument, to have the pages written into a folder: `--man-pages DIR`. It is no
/// setting, so `--help` does not name it.
const MAN_PAGES: &str = "--man-pages";

/// Writes the pages if that is what is asked for: of the program and of each of its commands, in section 1.
pub(crate) fn asked_for(command: &Command, args: &[OsString]) -> Option<Stop> {
    let [_, flag, folder] = args else { return None };
    (flag == MAN_PAGES).then(|| match write(command, Path::new(folder)) {
        Ok(()) => Stop::Print(String::new()),
        Err(error) => Stop::Fault(Fault::new(
            "MAN_PAGES",
            format!("can't write man pages to {}: {}", folder.display(), io_words(&error)),
            "name a folder that this user may write",
        )),
    })
}

fn write(command: &Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    write_each(&command, &source, folder)
}

fn write_each(command: &Command, source: &str, folder: &Path) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_each(sub, source, folder)?;
    }
    // Without a date, so that the same sources make the same pages; an empty one would shift what follows it.
    let page = Man::new(command.clone()).source(source).manual("Warren").date(" ");
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(folder.join(page.get_filename()), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        let ping =
            Command::new("ping").about("Reach it").arg(Arg::new("count").long("count").env("WARREN_COUNT"));
        Command::new("warren").version("1.2.3").subcommand(ping).subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn each_command_has_a_page_and_hidden_ones_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("man1");
        let args = ["warren", MAN_PAGES].map(OsString::from).into_iter().chain([to.clone().into()]);
        let stop = asked_for(&command(), &args.collect::<Vec<_>>());
        assert!(matches!(stop, Some(Stop::Print(text)) if text.is_empty()));
        let mut names: Vec<_> =
            std::fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["warren-ping.1", "warren.1"]);
        let page = std::fs::read_to_string(to.join("warren-ping.1")).unwrap();
        assert!(page.contains("WARREN_COUNT"), "{page}");
        assert!(page.contains("\n.TH warren-ping 1 \" \" \"warren 1.2.3\" Warren\n"), "{page}");
    }

    #[test]
    fn nothing_else_is_taken_for_it() {
        for args in [&["warren"][..], &["warren", "ping"], &["warren", "ping", "--man-pages"]] {
            assert!(asked_for(&command(), &args.iter().map(OsString::from).collect::<Vec<_>>()).is_none());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = [OsString::from("warren"), MAN_PAGES.into(), file.path().as_os_str().to_owned()];
        assert!(
            matches!(asked_for(&command(), &args), Some(Stop::Fault(fault)) if fault.code == "MAN_PAGES")
        );
    }
}
