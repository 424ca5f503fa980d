//! Workspaces, logins and relays that go away while somebody works.

use super::*;
use std::process::Stdio;

#[test]
fn a_ping_that_loses_its_workspace_tells_what_it_had_found_out() -> Result {
    let (deployment, agent, _) = dev(&[])?;
    let ping = |form: &str| -> Result<std::process::Child> {
        let mut command = deployment.command()?;
        command.args(["ping", "dev", "-c", "1000", "-i", "0.1", "-o", form]);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let (table, json) = (ping("table")?, ping("json")?);
    std::thread::sleep(Duration::from_secs(3));
    agent.kill()?;
    let out = table.wait_with_output()?;
    assert_eq!(out.status.code(), Some(5), "{}", said(&out));
    assert!(said(&out).starts_with("error: lost workspace \"dev\": "), "{}", said(&out));
    let text = result(&out);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(" received, ") && last.contains(" · min/avg/max "), "{text}");
    let out = json.wait_with_output()?;
    assert_eq!(out.status.code(), Some(5), "{}", said(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    assert!(report["summary"]["received"].as_u64() > Some(5), "{report:#}");
    let pongs = report["pongs"].as_array().ok_or("no pongs")?;
    let why = pongs.last().and_then(|pong| pong["error"].as_str()).unwrap_or_default();
    assert!(why.starts_with("lost workspace \"dev\": "), "{report:#}");
    Ok(())
}

#[test]
fn a_session_that_a_logout_ends_says_to_log_in_again() -> Result {
    let (deployment, _agent, _) = dev(&[])?;
    let mut command = deployment.command()?;
    command.args(["ssh", "dev", "echo there; sleep 60"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut there = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().ok_or("no output")?, &mut there)?;
    assert_eq!(&there, b"there\n");
    assert!(deployment.warren(&["logout"])?.status.success());
    let out = child.wait_with_output()?;
    // Any other status could be the command's.
    assert_eq!(out.status.code(), Some(255), "{}", said(&out));
    insta::assert_snapshot!(said(&out));
    Ok(())
}

#[test]
fn a_status_of_nothing_that_answers_is_a_failure() -> Result {
    let (deployment, agent, _) = dev(&[])?;
    deployment.create_workspace("idle")?;
    signal(agent.id(), "STOP")?;
    let told = |arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let out = deployment.warren(&[&["status", "-t", "1"], arguments].concat())?;
        Ok((out.status.code(), result(&out), said(&out)))
    };
    let (status, table, text) = told(&[])?;
    assert_eq!(status, Some(5), "{text}");
    let row = table.lines().find(|line| line.starts_with("dev ")).unwrap_or_default();
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[..5], ["dev", "alice", "connected", "-", "-"], "{table}");
    insta::assert_snapshot!(text);
    let (status, json, _) = told(&["-o", "json"])?;
    let rows: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!((status, &rows[0]["error_code"]), (Some(5), &"AGENT_GONE".into()), "{rows:#}");
    // A workspace that nobody expects to be there is no failure.
    assert_eq!(told(&["idle"])?.0, Some(0));
    signal(agent.id(), "CONT")?;
    let (status, _, text) = told(&[])?;
    assert_eq!((status, text.as_str()), (Some(0), ""));
    Ok(())
}
