//! `warren login` and `warren logout`.

use crate::api::Api;
use crate::browser;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::session::Session;
use clap::builder::BoolishValueParser;
use io_adapters::access_url::AccessUrl;
use proto_core::wire::api::{Grant, Login, Setup};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Log in to a server, remember it and use it from now on
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren login https://warren.example.com                        by the browser
  warren login https://warren.example.com --username alice
  warren login https://warren.example.com --token-file token.txt
  warren login https://other.example.com --name other --username alice
  warren login http://127.0.0.1:7080 --setup-token warren_setup_... --username alice

`warren context list` shows the servers that you are logged in to.")]
pub(crate) struct Args {
    /// The server's address
    #[arg(env = "WARREN_URL")]
    url: AccessUrl,
    /// What to call this server, where there are several [default: its host and port]
    #[arg(long, env = "WARREN_LOGIN_NAME")]
    name: Option<String>,
    /// Your name at the server
    #[arg(long, env = "WARREN_USERNAME")]
    username: Option<String>,
    /// Your password; asked for on a terminal, else read from standard input
    #[arg(long, env = "WARREN_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// A session token, instead of a password; better given by the environment or a file than here
    #[arg(long, env = "WARREN_TOKEN", hide_env_values = true, conflicts_with_all = ["password", "setup_token"])]
    token: Option<String>,
    /// A file that holds the session token
    #[arg(long, env = "WARREN_TOKEN_FILE", value_name = "FILE", conflicts_with_all = ["token", "password", "setup_token"])]
    token_file: Option<PathBuf>,
    /// Ask for the session token on a terminal, or read it from standard input
    #[arg(long, conflicts_with_all = ["token", "token_file", "password", "setup_token"])]
    token_stdin: bool,
    /// Confirm the login in a browser, here or on another machine [default on a terminal without --username]
    #[arg(long, env = "WARREN_LOGIN_BROWSER", value_parser = BoolishValueParser::new(),
          conflicts_with_all = ["username", "password", "token", "token_file", "token_stdin", "setup_token"])]
    browser: bool,
    /// The one-time token that a new server prints: makes you its owner
    #[arg(long, env = "WARREN_SETUP_TOKEN", hide_env_values = true)]
    setup_token: Option<String>,
}

impl Args {
    /// Whether the person has left open who they are.
    const fn says_nothing(&self) -> bool {
        self.username.is_none() && self.password.is_none() && self.setup_token.is_none()
    }

    /// The session token, if the person has one already.
    async fn session_token(&self) -> Result<Option<String>> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => read_file(file)?,
            (None, None) if self.token_stdin => secret("Token:").await?,
            (None, None) => return Ok(None),
        };
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let sentence = "the token is empty or has characters that no token has";
            return Err(CliError::new(Exit::Usage, "BAD_TOKEN", sentence));
        }
        Ok(Some(token.to_owned()))
    }
}

/// Logs in and keeps the session.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let (url, name) = (args.url.to_string(), args.name.clone());
    let session =
        Session { url: url.clone(), token: String::new(), username: String::new(), name: String::new() };
    let session = match args.session_token().await? {
        Some(token) => {
            let session = Session { token, ..session };
            let me = Api::logged_in(&session).me().await?;
            Session { username: me.user.name, ..session }
        }
        None => {
            let api = Api::new(&url);
            let by_browser = args.browser || args.says_nothing() && std::io::stderr().is_terminal();
            let Grant { token, user, .. } =
                if by_browser { by_browser_of(&api, &url).await? } else { grant(&api, args).await? };
            Session { token, username: user.name, ..session }
        }
    };
    let username = session.username.clone();
    let others = global.config.change_contexts(|contexts| {
        contexts.add(session, name.as_deref())?;
        Ok(contexts.all().len() - 1)
    })?;
    output::done(&json!({ "url": url, "username": username }), format!("logged in to {url} as {username}"));
    if others > 0 {
        output::note("it is the server in use now; `warren context list` shows all");
    }
    Ok(())
}

/// Ends the session at the server that was named, else at the one in use, and forgets it.
pub(crate) async fn logout(global: &Global) -> Result {
    let session = global.config.session()?;
    forget(global, &session).await
}

/// Ends a session and forgets it.
pub(crate) async fn forget(global: &Global, session: &Session) -> Result {
    // The login is forgotten here even if the server cannot be told.
    let told = Api::logged_in(session).logout().await;
    global.config.change_contexts(|contexts| {
        contexts.remove(&session.url);
        Ok(())
    })?;
    let words = match &told {
        Ok(()) => format!("logged out of {}", session.url),
        Err(e) => format!("logged out here; {} was not told: {}", session.url, e.message),
    };
    let not_told = told.err().map(|error| error.message);
    output::done(
        &json!({ "url": session.url, "server_told": not_told.is_none(), "why_not": not_told }),
        words,
    );
    Ok(())
}

async fn grant(api: &Api, args: Args) -> Result<Grant> {
    let username = args.username.ok_or_else(|| {
        CliError::new(Exit::Usage, "NO_USERNAME", "who are you at this server?")
            .hint("add --username NAME, or --browser")
    })?;
    let password = match args.password {
        Some(password) => password,
        None => secret(&format!("Password of {username}:")).await?,
    };
    match args.setup_token {
        Some(token) => api.setup(&Setup { token, username, password, cookie: false }).await,
        None => api.login(&Login { username, password, cookie: false }).await,
    }
}

/// Waits until the person has confirmed the login in a browser.
async fn by_browser_of(api: &Api, url: &str) -> Result<Grant> {
    let login = api.begin_device_login().await.map_err(|error| match error.exit {
        Exit::NotFound => {
            CliError::new(Exit::Usage, "NO_BROWSER_LOGIN", format!("{url} knows no login by browser"))
                .hint("add --username NAME")
        }
        _ => error,
    })?;
    output::note(format!("the code is {}", login.user_code));
    if browser::open_or_warn(&login.verification_url).await {
        output::note(format!("confirm it in the browser, at {}", login.verification_url));
    } else {
        output::note(format!("confirm it in any browser, at {}", login.verification_url));
    }
    let pause = Duration::from_secs(login.interval.clamp(1, 60));
    let expired = Instant::now() + Duration::from_secs(login.expires_in);
    let mut unreachable = None;
    while Instant::now() < expired {
        sleep(pause).await;
        match api.device_grant(&login.device_code).await {
            Ok(Some(grant)) => return Ok(grant),
            Ok(None) => unreachable = None,
            // A server that restarts or a network that changes is no reason to give up what a person is at.
            Err(error) if error.exit == Exit::Unreachable => unreachable = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(unreachable.unwrap_or_else(|| {
        CliError::new(Exit::Forbidden, "LOGIN_EXPIRED", "nobody confirmed this login in time")
            .hint("run `warren login` again")
    }))
}

/// Asks for a secret on a terminal; elsewhere standard input is read without a word.
async fn secret(question: &str) -> Result<String> {
    if std::io::stdin().is_terminal() { read_hidden(question).await } else { read_line() }
}

fn read_file(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| {
        let sentence = format!("can't read the token in {}: {e}", file.display());
        CliError::new(Exit::Usage, "TOKEN_FILE_UNREADABLE", sentence)
            .hint("check the path and its permissions")
    })
}

/// Asks on the terminal; what is typed is not shown.
async fn read_hidden(question: &str) -> Result<String> {
    let hidden = Hidden::begin();
    output::note(question);
    let (reply, line) = tokio::sync::oneshot::channel();
    // A thread that is not waited for: nothing but a key ends its reading.
    std::thread::spawn(move || reply.send(read_line()));
    let line = tokio::select! {
        line = line => line.ok(),
        _ = tokio::signal::ctrl_c() => None,
    };
    drop(hidden);
    line.unwrap_or_else(|| Err(CliError::new(Exit::Failed, "INTERRUPTED", "the question was interrupted")))
}

/// A terminal that shows only the ends of lines, until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(std::io::stdin()) else { return Self(None) };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        // Keys hit before the question are no answer to it.
        let done = tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden);
        Self(done.ok().map(|()| before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let line = line.trim_end_matches(['\r', '\n']);
    if read.is_err() || line.is_empty() {
        return Err(CliError::new(Exit::Usage, "NO_SECRET", "no password or token came on standard input"));
    }
    Ok(line.to_string())
}
