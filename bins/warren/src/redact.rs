//! Taking secrets out of text that is to be shown to others.

mod named;
mod pem;

/// What stands in a secret's place.
const HIDDEN: &str = "(hidden)";
/// What tokens begin with, whatever comes then.
const PREFIXES: [&str; 5] =
    ["warren_session_", "warren_agent_", "warren_setup_", "warren_api_", "warren_device_"];
/// What the name of a setting with a secret in it contains.
const SECRET_NAMES: [&str; 4] = ["token", "password", "secret", "key"];

/// What takes out secrets: those that are known, and whatever looks like one.
#[derive(Default)]
pub(crate) struct Redactor {
    known: Vec<String>,
}

impl Redactor {
    /// One that knows these secrets.
    pub(crate) fn knowing(known: impl IntoIterator<Item = String>) -> Self {
        // What is short would be found everywhere, and is no secret.
        Self { known: known.into_iter().map(|s| s.trim().to_owned()).filter(|s| s.len() >= 8).collect() }
    }

    /// The text without secrets.
    pub(crate) fn clean(&self, text: &str) -> String {
        let mut text = pem::hide(text);
        for secret in &self.known {
            text = text.replace(secret, HIDDEN);
        }
        for prefix in PREFIXES {
            text = hide_after(&text, prefix, |c| c.is_ascii_alphanumeric() || c == '_');
        }
        for scheme in ["Bearer ", "bearer "] {
            text = hide_after(&text, scheme, |c| !c.is_whitespace() && c != '"');
        }
        hide_passwords(&named::hide(&text))
    }

    /// A settings file, or a list of variables, without the values of secrets.
    pub(crate) fn settings(&self, text: &str) -> String {
        // The quotes that end a secret of several lines.
        let mut inside: Option<&str> = None;
        let mut lines = Vec::new();
        for line in text.lines() {
            if let Some(quotes) = inside {
                inside = inside.filter(|_| !line.contains(quotes));
                continue;
            }
            lines.push(match line.split_once('=') {
                Some((name, value)) if is_secret(name) || is_table_with_secret(value) => {
                    inside = ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() == 1);
                    format!("{name}= {HIDDEN}")
                }
                // A proxy needs no scheme in front of its name and password.
                Some((name, value)) if is_proxy(name) => match value.rsplit_once('@') {
                    Some((_, host)) => format!("{name}={HIDDEN}@{host}"),
                    None => line.to_owned(),
                },
                _ => line.to_owned(),
            });
        }
        self.clean(&lines.join("\n"))
    }
}

/// Whether a setting of this name has a secret as its value.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|word| name.contains(word)) && !name.trim_end().ends_with("file")
}

/// Whether a value is a table in one line that has a secret in it.
fn is_table_with_secret(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    value.contains('{') && SECRET_NAMES.iter().any(|word| value.contains(word))
}

fn is_proxy(name: &str) -> bool {
    name.trim().to_ascii_lowercase().ends_with("_proxy")
}

/// Hides what follows `prefix`, as long as it is of these letters.
fn hide_after(text: &str, prefix: &str, belongs: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(prefix) {
        out.push_str(before);
        out.push_str(prefix);
        let end = after.find(|c| !belongs(c)).unwrap_or(after.len());
        if end > 0 {
            out.push_str(HIDDEN);
        }
        rest = after.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Hides names and passwords in addresses: `http://alice:secret@proxy`.
fn hide_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        // Commas and single quotes may be part of a password.
        let mut end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"')).unwrap_or(after.len());
        let (authority, next) = after.split_at(end);
        if next.starts_with("//") && authority.ends_with(':') {
            // Another address follows in the same list.
            end = authority.rfind(',').unwrap_or(end);
        }
        let authority = after.get(..end).unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((_, host)) => out.push_str(&format!("{HIDDEN}@{host}")),
            None => out.push_str(authority),
        }
        rest = after.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden() {
        let redactor = Redactor::knowing(["0123456789abcdef".to_owned(), "x".to_owned()]);
        let cases = [
            "key 0123456789abcdef, x",
            "token warren_session_00ff, warren_agent_zz.",
            "Authorization: Bearer abc.def\"",
            "via http://alice:pw@proxy:3128/ and https://warren.example/",
            "http://bob:a,b'c@proxy:1, http://x:y@one,http://z:w@two",
            "warren_api_00ff and warren_device_zz",
            "warren_session_",
        ];
        insta::assert_snapshot!(cases.map(|text| redactor.clean(text)).join("\n"), @r#"
        key (hidden), x
        token warren_session_(hidden), warren_agent_(hidden).
        Authorization: (hidden)
        via http://(hidden)@proxy:3128/ and https://warren.example/
        http://(hidden)@proxy:1, http://(hidden)@one,http://(hidden)@two
        warren_api_(hidden) and warren_device_(hidden)
        warren_session_
        "#);
    }

    #[test]
    fn settings_keep_their_names() {
        let text = "url = \"https://a.example\"\npassword = \"pw\"\nWARREN_TOKEN=abc\ntoken-file = \"/t\"\n[ping]\n\
             HTTPS_PROXY=alice:pw@proxy:3128\nhttp_proxy=proxy:3128\nlogin = { password = \"pw\" }\n\
             secret = \"\"\"\npw\npw\"\"\"\ncount = 3";
        insta::assert_snapshot!(Redactor::default().settings(text), @r#"
        url = "https://a.example"
        password = (hidden)
        WARREN_TOKEN= (hidden)
        token-file = "/t"
        [ping]
        HTTPS_PROXY=(hidden)@proxy:3128
        http_proxy=proxy:3128
        login = (hidden)
        secret = (hidden)
        count = 3
        "#);
    }

    proptest! {
        #[test]
        fn nothing_of_a_known_secret_is_left(before in "\\PC*", after in "\\PC*", secret in "[a-z0-9]{16,64}") {
            let redactor = Redactor::knowing([secret.clone()]);
            let text = format!("{before}{secret}{after} warren_session_{secret} {secret}");
            prop_assert!(!redactor.clean(&text).contains(&secret));
            let unknown = format!("{before} warren_agent_{secret} {after}");
            let elsewhere = before.contains(&secret) || after.contains(&secret);
            prop_assert!(elsewhere || !Redactor::default().clean(&unknown).contains(&secret));
        }
    }
}
