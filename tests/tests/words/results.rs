//! Every result, as a table and as JSON, of a person and a workspace behind NATs of their own.

use super::{Result, Transcript};
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat};

/// Each number as `N`, where it is no part of a name: what is measured differs each time.
fn numbers_hidden(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let inside = out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        match c {
            '0'..='9' | '.' if out.ends_with("\u{1}") => {}
            '0'..='9' if !inside => out.push('\u{1}'),
            _ => out.push(c),
        }
    }
    out.replace('\u{1}', "N")
}

/// The same of a document. Of several that are alike then, one is shown.
fn document_hidden(document: &mut Value, hide: &impl Fn(&str) -> String) {
    match document {
        Value::Number(_) => *document = "N".into(),
        Value::String(text) => *text = hide(text),
        Value::Array(all) => {
            all.iter_mut().for_each(|one| document_hidden(one, hide));
            all.dedup();
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "id" if value.is_string() => *value = "ID".into(),
                    _ => document_hidden(value, hide),
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// The same without the token of an agent.
fn token_hidden(text: &str) -> String {
    const BEGIN: &str = "warren_agent_";
    let Some((before, token)) = text.split_once(BEGIN) else { return text.to_owned() };
    let rest = token.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    format!("{before}{BEGIN}TOKEN{rest}")
}

/// Runs of spaces as two, since columns are as wide as what stands in them.
fn squeezed(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<_> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        words.join("  ")
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

/// Everything that is typed in one place, and what came.
struct Shown<'a> {
    deployment: &'a Deployment<'a>,
    told: Transcript,
}

impl Shown<'_> {
    fn hide(&self, text: &str) -> String {
        let hidden = &self.told.hidden;
        let text = hidden.iter().fold(text.to_owned(), |text, (what, name)| text.replace(what, name));
        if text.len() > 19 && text.ends_with('Z') && text.get(10..11) == Some("T") {
            return "MOMENT".into();
        }
        let text = token_hidden(&text);
        // How much it is, and so its unit, is the machine's.
        numbers_hidden(&text).replace("N KiB", "N B").replace("N MiB", "N B")
    }

    /// Runs it in both forms; the document.
    fn both(&mut self, arguments: &[&str]) -> Result<Value> {
        self.table(arguments)?;
        self.json(arguments)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let out = self.deployment.warren(arguments)?;
        assert!(out.status.success(), "{arguments:?}: {out:?}");
        Ok(out)
    }

    fn table(&mut self, arguments: &[&str]) -> Result {
        let mut out = self.run(arguments)?;
        out.stdout = squeezed(&String::from_utf8(out.stdout)?).into_bytes();
        self.note(arguments, &out);
        Ok(())
    }

    fn json(&mut self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["-o", "json"]].concat();
        let mut out = self.run(&arguments)?;
        let document: Value = serde_json::from_slice(&out.stdout)?;
        let mut shown = document.clone();
        document_hidden(&mut shown, &|text| self.hide(text));
        out.stdout = (serde_json::to_string_pretty(&shown)? + "\n").into_bytes();
        self.note(&arguments, &out);
        Ok(document)
    }

    fn note(&mut self, arguments: &[&str], out: &Output) {
        let mut one = Transcript::default();
        let mut typed = Command::new("warren");
        one.note(&super::words(typed.args(arguments)), out);
        let lines: Vec<_> = one.text.lines().map(|line| self.hide(line)).collect();
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        // How many seconds of a test there are depends on when its last bytes come.
        lines.dedup_by(|one, other| one == other && one.contains("N-N sec"));
        self.told.text.push_str(&(lines.join("\n").trim_end().to_owned() + "\n\n"));
    }
}

/// A program in the workspace that listens at this port.
fn listening(lab: &Lab, deployment: &Deployment<'_>, port: &str) -> Result<Running> {
    let mut program = lab.command("bob", "python3");
    program.args(["-m", "http.server", "--bind", "127.0.0.1", port]).current_dir(deployment.dir());
    let mut program = Running::start(program, deployment.path("listening.log"))?;
    program.wait("the program", || {
        lab.ok("bob", &["curl", "--silent", "--output", "/dev/null", &format!("http://127.0.0.1:{port}")])
            .ok()
    })?;
    Ok(program)
}

#[test]
fn every_result_is_shown_as_a_table_and_as_json() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let mut shown = Shown { deployment: &deployment, told: Transcript::default() };
    let host = deployment.url().trim_start_matches("http://");
    shown.told.hide(host, "SERVER").hide(deployment.dir().display().to_string(), "DIR");
    for (address, name) in [("10.1.0.2", "ALICE"), ("198.51.100.2", "OUTSIDE"), ("203.0.113.2", "SERVER")] {
        shown.told.hide(address, name);
    }

    shown.both(&["workspaces", "list"])?;
    shown.both(&["status"])?;
    shown.table(&["workspaces", "create", "idle"])?;
    let dev = shown.json(&["workspaces", "create", "dev"])?;
    let _agent = deployment.start_agent("dev", dev["agent_token"].as_str().ok_or("no token")?)?;
    let _program = listening(&lab, &deployment, "8000")?;

    let list = deployment.json(&["workspaces", "list"])?;
    let agents = list.as_array().into_iter().flatten().map(|workspace| &workspace["agents"][0]["node_key"]);
    let key = agents.filter_map(Value::as_str).next().ok_or("no key")?;
    shown.told.hide(key, "KEY");
    shown.both(&["workspaces", "list"])?;
    let relays = "--disable-direct-connections";
    shown.both(&["status", relays])?;
    shown.both(&["ping", "dev", "-c", "2", "-i", "0.1", relays])?;
    shown.both(&["speedtest", "dev", "--time", "1", relays])?;
    shown.both(&["netcheck"])?;
    shown.both(&["ports", "dev", relays])?;
    shown.both(&["version", "dev"])?;
    shown.both(&["open", "dev", "--no-browser"])?;
    shown.both(&["context", "list"])?;
    shown.both(&["workspaces", "trust", "dev"])?;
    shown.table(&["workspaces", "delete", "idle"])?;
    shown.json(&["workspaces", "delete", "dev"])?;
    insta::assert_snapshot!(shown.told.text);
    Ok(())
}

#[test]
fn every_deed_is_told_in_words_and_as_a_document() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let (host, folder) =
        (deployment.url().trim_start_matches("http://"), deployment.dir().display().to_string());
    let mut shown = Shown { deployment: &deployment, told: Transcript::default() };
    shown.told.hide(host, "SERVER").hide(&folder, "DIR");
    shown.told.hide(tests::program("warren")?.display().to_string(), "WARREN");

    let (config, bundle) = (format!("{folder}/ssh_config"), format!("{folder}/bundle.zip"));
    let config_ssh = ["config-ssh", "--ssh-config-file", &config];
    shown.both(&[&config_ssh[..], &["--dry-run"]].concat())?;
    // It is there the second time.
    shown.both(&config_ssh)?;
    shown.both(&[&config_ssh[..], &["--remove", "--dry-run"]].concat())?;
    shown.both(&[&config_ssh[..], &["--remove"]].concat())?;
    shown.json(&["support-bundle", "--dry-run"])?;
    shown.table(&["support-bundle", "--output-file", &bundle])?;

    let socket = format!("{folder}/near.sock");
    let arguments = ["port-forward", "dev", "--tcp", "0:80", "--udp", "0:53", "--reverse", "0:3000"];
    let sockets = format!("{socket}:/run/far.sock");
    let arguments = [&arguments[..], &["--unix", &sockets]].concat();
    let mut forward = deployment.command()?;
    let mut forward = forward.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let out = forward.stdout.take().ok_or("no output")?;
    let lines: Vec<_> =
        std::io::BufRead::lines(std::io::BufReader::new(out)).take(4).collect::<std::io::Result<_>>()?;
    Command::new("kill").args(["-INT", &forward.id().to_string()]).status()?;
    let mut out = forward.wait_with_output()?;
    assert!(out.status.success(), "{out:?}");
    out.stdout = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
    shown.note(&arguments, &out);

    let other = format!("{folder}/other");
    let elsewhere = ["--config-dir", other.as_str()];
    let settings = format!("{folder}/login.toml");
    std::fs::write(&settings, "[login]\npassword = \"correct horse battery staple\"\n")?;
    let login = ["login", deployment.url(), "--username", "alice", "--config", &settings];
    shown.both(&[&login[..], &elsewhere].concat())?;
    shown.table(&[&login[..], &elsewhere, &["--name", "work"]].concat())?;
    shown.both(&[&["context", "use", "work"][..], &elsewhere].concat())?;
    shown.table(&[&["context", "remove", "work"][..], &elsewhere].concat())?;
    shown.both(&[&["context", "list"][..], &elsewhere].concat())?;
    shown.json(&[&login[..], &elsewhere].concat())?;
    shown.json(&[&["context", "remove", deployment.url()][..], &elsewhere].concat())?;
    shown.run(&[&login[..], &elsewhere].concat())?;
    shown.json(&[&["logout"][..], &elsewhere].concat())?;
    shown.table(&["logout"])?;
    insta::assert_snapshot!(shown.told.text);
    Ok(())
}
