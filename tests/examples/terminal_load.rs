//! Opens many terminals in the browser's way and measures: a key's echo among quiet ones, and what they cost the server.
//! `cargo xtask bench terminal` runs it: `terminal_load URL SERVER_PID QUIET MANY WORKSPACE...`, one line of JSON.
#![allow(clippy::print_stdout, reason = "its result")]

#[path = "../tests/web_terminal/browser.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod browser;

use browser::{Browser, log_in, words};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::time::{Duration, Instant};
use tests::Result;
use tokio::time::sleep;

/// Keys typed, and the pause between two: a fast typist's, several times.
const KEYS: usize = 500;
/// See [`KEYS`].
const PAUSE: Duration = Duration::from_millis(15);

/// Terminals opened at the same time.
const AT_ONCE: usize = 16;
/// How long one terminal is flooded: longer than the keys beside it take.
const FLOOD: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().ok_or_else(|| format!("{what} is missing"));
    let (url, pid) = (next("URL")?, next("SERVER_PID")?);
    let number = |text: String| text.parse::<usize>().map_err(words);
    let (quiet, many) = (number(next("QUIET")?)?, number(next("MANY")?)?);
    let workspaces: Vec<String> = args.collect();
    let token = log_in(&url)?;
    let opener = Opener { url, token, workspaces };

    let before = resident_kib(&pid)?;
    let mut held = Vec::new();
    opener.fill(&mut held, quiet).await?;
    let echoes = echo(opener.open(0).await?).await?;
    let some = resident_kib(&pid)?;
    opener.fill(&mut held, many).await?;
    let all = resident_kib(&pid)?;
    // One person may have no more than a thousand.
    held.drain(..many / 10).for_each(|terminal| terminal.abort());
    sleep(Duration::from_secs(1)).await;
    // In the same workspace as the one that is timed.
    let flood = tokio::spawn(flood(opener.open(0).await?.blind()));
    let beside = echo(opener.open(0).await?).await?;
    let rate = flood.await.map_err(words)??;
    let told = json!({
        "echo_ms": echoes, "echo_beside_flood_ms": beside, "flood_mb_per_s": rate,
        "before_kib": before, "quiet_kib": some, "many_kib": all, "flooded_kib": resident_kib(&pid)?,
    });
    println!("{told}");
    Ok(())
}

/// Opens terminals, each a session of its own.
struct Opener {
    url: String,
    token: String,
    workspaces: Vec<String>,
}

impl Opener {
    /// The one of this number, once its shell has shown its prompt.
    async fn open(&self, number: usize) -> Result<Browser> {
        let workspace = &self.workspaces[number % self.workspaces.len()];
        let path = format!("/workspaces/me/{workspace}/terminal?cols=80&rows=24");
        let mut refused = 0;
        let mut browser = loop {
            match Browser::open(&self.url, &self.token, &path).await {
                Ok(browser) => break browser,
                // The server bounds how fast one person asks.
                Err(why) if why.contains("429") && refused < 600 => refused += 1,
                Err(why) => return Err(why),
            }
            sleep(Duration::from_millis(100)).await;
        };
        browser.word("ready").await?;
        while browser.screen.screen().contents().trim().is_empty() {
            browser.take().await?;
        }
        Ok(browser)
    }

    /// Opens further ones until there are so many, and lets them be read.
    async fn fill(&self, held: &mut Vec<tokio::task::JoinHandle<Result>>, many: usize) -> Result {
        // Several at a time, since each shell takes a while to begin; each is read from then on, or the server would
        // have to believe that its browser has gone.
        let opening =
            stream::iter(held.len()..many).map(|number| self.open(number)).buffer_unordered(AT_ONCE);
        let hold = |browser: Browser| {
            let mut browser = browser.blind();
            tokio::spawn(async move {
                while browser.take().await? {}
                Err("a terminal has ended".to_owned())
            })
        };
        held.extend(opening.map_ok(hold).try_collect::<Vec<_>>().await?);
        sleep(Duration::from_secs(2)).await;
        match held.iter().position(tokio::task::JoinHandle::is_finished) {
            Some(ended) => {
                let why = held.swap_remove(ended).await.map_err(words)?;
                Err(format!("of {many} quiet terminals one has ended: {why:?}"))
            }
            None => Ok(()),
        }
    }
}

/// How long each key takes until a program in the workspace has read it and written it back, in milliseconds.
async fn echo(mut browser: Browser) -> Result<Vec<f64>> {
    browser.type_in("stty raw -echo; echo be''gin; exec cat\r").await?;
    browser.until("begin").await?;
    sleep(Duration::from_millis(500)).await;
    let mut times = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let (began, before) = (Instant::now(), browser.bytes);
        browser.type_in("x").await?;
        while browser.bytes == before {
            browser.take().await?;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        sleep(PAUSE).await;
    }
    Ok(times)
}

/// How fast a program's output comes that never ends and is shown as soon as it comes, in megabytes a second.
async fn flood(mut browser: Browser) -> Result<f64> {
    browser
        .type_in("exec yes 0123456789012345678901234567890123456789012345678901234567890123456789\r")
        .await?;
    let (began, before) = (Instant::now(), browser.bytes);
    browser.watch_for(FLOOD).await?;
    Ok((browser.bytes - before) as f64 / began.elapsed().as_secs_f64() / 1e6)
}

fn resident_kib(pid: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(words)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS line")?;
    line.split_whitespace().next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("VmRSS: {line}"))
}
