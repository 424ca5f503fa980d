//! The help of every command.

use super::Result;
use std::path::Path;
use std::process::Command;

/// Test programs that show the help of some commands already, beside what these do.
const ELSEWHERE: [&str; 3] = ["programs", "tools", "measures"];

/// Above the options that every command has.
const SHARED: &str = "Options of all commands:";

/// The help of a command, which is named by its words.
fn help(words: &[String]) -> Result<String> {
    let out = Command::new(tests::program("warren")?).args(words).arg("--help").output()?;
    assert!(out.status.success() && out.stderr.is_empty(), "{words:?}: {out:?}");
    Ok(String::from_utf8(out.stdout)?)
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_help_of_every_command_is_shown() -> Result {
    let (whole, mut todo, mut seen) = (help(&[])?, vec![Vec::new()], 0);
    while let Some(words) = todo.pop() {
        let text = help(&words)?;
        seen += 1;
        for name in listed(&text).into_iter().filter(|name| name != "help") {
            todo.push([&words[..], &[name]].concat());
        }
        let name =
            ["help".to_owned()].iter().chain(&words).map(|word| word.replace('-', "_")).collect::<Vec<_>>();
        let name = name.join("_");
        let elsewhere = |program: &str| {
            let file = format!("tests/tests/snapshots/{program}__{name}.snap");
            tests::root().join(Path::new(&file)).is_file()
        };
        if !ELSEWHERE.iter().any(|program| elsewhere(program)) {
            // Those of all commands are shown once, in the program's own help.
            let (own, shared) = text.split_once(SHARED).ok_or("no options of all commands")?;
            assert!(whole.contains(shared.trim_end()), "{words:?} has others: {shared}");
            insta::assert_snapshot!(name, own.trim_end());
        }
    }
    assert!(seen > 20, "the commands are not found: {seen}");
    Ok(())
}
