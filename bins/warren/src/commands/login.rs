//! `warren login` and `warren logout`.

use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::session::Session;
use io_adapters::access_url::AccessUrl;
use proto_core::wire::api::{Grant, Login, Setup};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal};

/// Log in to a server and remember it
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren login https://warren.example.com --username alice
  warren login https://warren.example.com --token-stdin < token.txt
  warren login http://127.0.0.1:7080 --setup-token warren_setup_... --username alice")]
pub(crate) struct Args {
    /// The server's address
    #[arg(env = "WARREN_URL")]
    url: AccessUrl,
    /// Your name at the server
    #[arg(long, env = "WARREN_USERNAME")]
    username: Option<String>,
    /// Your password; asked for on a terminal, else read from standard input
    #[arg(long, env = "WARREN_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Read a session token from standard input instead of asking for a password
    #[arg(long, conflicts_with_all = ["password", "setup_token"])]
    token_stdin: bool,
    /// The one-time token that a new server prints: makes you its owner
    #[arg(long, env = "WARREN_SETUP_TOKEN", hide_env_values = true)]
    setup_token: Option<String>,
}

/// Logs in and keeps the session.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let url = args.url.to_string();
    let api = Api::new(&url);
    let session = if args.token_stdin {
        let token = read_line()?;
        let session = Session { url: url.clone(), token, username: String::new() };
        let me = Api::logged_in(&session).me().await?;
        Session { username: me.user.name, ..session }
    } else {
        let Grant { token, user, .. } = grant(&api, args).await?;
        Session { url: url.clone(), token, username: user.name }
    };
    global.config.save_session(&session)?;
    output::note(format!("logged in to {url} as {}", session.username));
    Ok(())
}

/// Ends the session and forgets it.
pub(crate) async fn logout(global: &Global) -> Result {
    let session = global.config.session()?;
    // The login is forgotten here even if the server cannot be told.
    let told = Api::logged_in(&session).logout().await;
    global.config.remove_session()?;
    match told {
        Ok(()) => output::note(format!("logged out of {}", session.url)),
        Err(e) => output::note(format!("logged out here; {} was not told: {}", session.url, e.message)),
    }
    Ok(())
}

async fn grant(api: &Api, args: Args) -> Result<Grant> {
    let username = args.username.ok_or_else(|| {
        CliError::new(Exit::Usage, "NO_USERNAME", "who are you at this server?").hint("add --username NAME")
    })?;
    let password = match args.password {
        Some(password) => password,
        None if std::io::stdin().is_terminal() => read_hidden(&format!("Password of {username}:")).await?,
        None => read_line()?,
    };
    match args.setup_token {
        Some(token) => api.setup(&Setup { token, username, password }).await,
        None => api.login(&Login { username, password }).await,
    }
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
