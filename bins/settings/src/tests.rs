use super::*;
use clap::{Arg, ArgAction, ArgGroup};

/// A program with the kinds of setting there are.
fn program() -> Command {
    let arg = |name: &'static str, variable: &'static str| Arg::new(name).long(name).env(variable);
    Command::new("tester")
        .arg(arg("config", "SETTINGS_TEST_CONFIG").value_parser(clap::value_parser!(PathBuf)).global(true))
        .arg(arg("url", "SETTINGS_TEST_URL").required(true))
        .arg(arg("token", "SETTINGS_TEST_TOKEN"))
        .arg(arg("token-file", "SETTINGS_TEST_TOKEN_FILE").conflicts_with("token"))
        .arg(arg("many", "SETTINGS_TEST_MANY").value_delimiter(',').action(ArgAction::Append))
        .arg(Arg::new("switch").long("switch").env("SETTINGS_TEST_SWITCH").action(ArgAction::SetTrue))
        .arg(Arg::new("plain").long("plain"))
        .subcommand(
            Command::new("ping").arg(
                arg("count", "SETTINGS_TEST_COUNT")
                    .default_value("10")
                    .value_parser(clap::value_parser!(u32).range(1..=20)),
            ),
        )
        .subcommand(
            Command::new("forward")
                .args([arg("tcp", "SETTINGS_TEST_TCP"), arg("udp", "SETTINGS_TEST_UDP")])
                .group(ArgGroup::new("what").required(true).multiple(true).args(["tcp", "udp"])),
        )
        .subcommand(Command::new("idle"))
}

fn file_of(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn read_with(file: &str, args: &[&str]) -> Result<Given, Stop> {
    let (_dir, path) = file_of(file);
    let args = ["tester"].iter().chain(args).map(OsString::from);
    read(&program(), args, |_| Some(path))
}

fn text(given: &Given, id: &str) -> String {
    given.matches.get_raw(id).into_iter().flatten().map(|v| v.to_string_lossy()).collect::<Vec<_>>().join("+")
}

#[test]
fn a_file_stands_in_for_what_is_not_given() {
    let file = "url = \"u\"\nmany = [\"a\", 0x10]\nswitch = true\n[ping]\ncount = 3\n";
    let given = read_with(file, &["ping"]).unwrap();
    assert_eq!((text(&given, "url"), text(&given, "many")), ("u".into(), "a+16".into()));
    assert!(given.matches.get_flag("switch"));
    let count = |given: &Given| *given.matches.subcommand().unwrap().1.get_one::<u32>("count").unwrap();
    assert_eq!(count(&given), 3);
    assert!(matches!(given.origin("switch"), Origin::File { line: 3, .. }));
    assert_eq!((given.origin("token"), given.origin("token-file")), (Origin::Default, Origin::Default));

    let given = read_with(file, &["--url", "flag", "ping", "--count", "7"]).unwrap();
    assert_eq!((text(&given, "url"), count(&given), given.origin("url")), ("flag".into(), 7, Origin::Flag));
    // Without a file at the usual place there are the defaults, and what must be given must be given.
    let nowhere = || Some(PathBuf::from("/nonexistent/t.toml"));
    let given =
        read(&program(), ["tester", "--url", "u", "ping"].map(OsString::from), |_| nowhere()).unwrap();
    assert_eq!(count(&given), 10);
    let missing = read(&program(), ["tester", "ping"].map(OsString::from), |_| nowhere());
    assert!(matches!(missing, Err(Stop::Usage(e)) if e.to_string().contains("--url")));
}

#[test]
fn one_of_several_that_must_be_given_may_stand_in_the_file() {
    let tcp = |given: &Given| {
        let (_, forward) = given.matches.subcommand().unwrap();
        forward.get_one::<String>("tcp").cloned()
    };
    let given = read_with("url = \"u\"\n[forward]\ntcp = \"8080:80\"\n", &["forward"]).unwrap();
    assert_eq!(tcp(&given).as_deref(), Some("8080:80"));
    let given = read_with("url = \"u\"\n", &["forward", "--udp", "53"]).unwrap();
    assert_eq!(tcp(&given), None);
    assert!(matches!(read_with("url = \"u\"\n", &["forward"]), Err(Stop::Usage(_))));
}

#[test]
fn a_flag_beats_the_other_way_to_say_it_in_the_file() {
    let file = "url = \"u\"\ntoken = \"from the file\"\n";
    let given = read_with(file, &["--token-file", "here"]).unwrap();
    assert_eq!((text(&given, "token"), text(&given, "token-file")), (String::new(), "here".into()));
    let file = "url = \"u\"\ntoken-file = \"in the file\"\n";
    let given = read_with(file, &["--token", "here"]).unwrap();
    assert_eq!((text(&given, "token"), text(&given, "token-file")), ("here".into(), String::new()));
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_line_and_key() {
    let mut said = String::new();
    for file in [
        "url\n",
        "\nurll = \"u\"\n",
        "plain = \"no variable, no line\"\n",
        "config = \"other\"\n",
        "url = { a = 1 }\n",
        "url = \"u\"\n[ping]\n\ncounts = 1\n",
        "url = \"u\"\n[ping]\ncount = 21\n",
        "url = \"u\"\n[ping]\ncount = \"many\"\n",
        "url = \"u\"\n[pin]\ncount = 2\n",
        "url = \"u\"\n[idle]\ncolour = 2\n",
        "url = \"u\"\nurl = \"u\"\n",
    ] {
        let Err(Stop::Fault(fault)) = read_with(file, &["ping"]) else { panic!("{file}") };
        let place = fault.message.find("t.toml").unwrap();
        let _ = writeln!(said, "{}: {}\n  {}", fault.code, &fault.message[place..], fault.hint);
    }
    insta::assert_snapshot!(said);
    // What a flag says is not the file's fault.
    assert!(matches!(read_with("url = \"u\"\n", &["ping", "--count", "0"]), Err(Stop::Usage(_))));
    assert!(matches!(read_with("", &["--help"]), Err(Stop::Print(_))));
}
