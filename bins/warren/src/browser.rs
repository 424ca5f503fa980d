//! The person's browser.

use crate::output;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long an opener may take to say that it has none to open: those that go on are browsers themselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens an address in the browser. False if there is none, as without a display, or with a warning if it can't be
/// opened.
pub(crate) async fn open_or_warn(url: &str) -> bool {
    let Some(words) = opener(url) else { return false };
    match start(words).await {
        Ok(()) => true,
        Err(why) => {
            output::warning("NO_BROWSER", &format!("no browser could be opened: {why}"));
            false
        }
    }
}

/// The command that opens an address here, if there is one.
fn opener(url: &str) -> Option<Vec<String>> {
    if !is_page(url) {
        return None;
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(browser) = set("BROWSER") {
        return of_variable(&browser, url);
    }
    if cfg!(target_os = "macos") {
        return Some(vec!["open".into(), url.into()]);
    }
    let display = set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY"));
    display.map(|_| vec!["xdg-open".into(), url.into()])
}

/// Whether an address is one for a browser: a server may name any, a file of this machine or what looks like a flag.
fn is_page(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
}

/// The first command of `$BROWSER`, which lists several with colons; `%s` stands for the address.
fn of_variable(browser: &str, url: &str) -> Option<Vec<String>> {
    let first = browser.split(':').find(|command| !command.trim().is_empty())?;
    let mut words: Vec<String> = first.split_whitespace().map(|word| word.replace("%s", url)).collect();
    if !first.contains("%s") {
        words.push(url.to_owned());
    }
    Some(words)
}

/// Starts it, and lets it go on when this program has ended.
async fn start(words: Vec<String>) -> std::result::Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Err("$BROWSER is empty".into()) };
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C is meant for what runs in the terminal.
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_are_opened() {
        assert!(is_page("https://warren.example/workspaces/alice/dev"));
        assert!(!["file:///etc/passwd", "--version", "javascript:alert(1)", ""].into_iter().any(is_page));
    }

    #[test]
    fn the_variable_names_the_browser() {
        let words = |browser| of_variable(browser, "http://a/").unwrap_or_default().join("|");
        assert_eq!(words("firefox"), "firefox|http://a/");
        assert_eq!(words("chromium --app=%s:lynx"), "chromium|--app=http://a/");
        assert_eq!(words(":w3m -N"), "w3m|-N|http://a/");
        assert_eq!(of_variable(" : ", "http://a/"), None);
    }
}
