//! Secrets that are told by the name in front of them: `password=…`, `--token …`, `"secret": "…"`, `Authorization: …`.

use super::HIDDEN;

/// What the name of a secret contains, in lower case. Not every key is one: those of nodes are public.
const NAMES: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "private_key",
    "private-key",
    "privatekey",
    "preshared",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "accesskey",
];
/// What the name of a header contains whose whole line is secret.
const HEADERS: [&str; 2] = ["authorization", "cookie"];

/// The text without the values of secrets.
pub(super) fn hide(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut before) = (text, None);
    while let Some(at) = rest.find(is_letter) {
        let (skipped, from) = rest.split_at(at);
        let (name, after) = from.split_at(from.find(|c| !is_letter(c)).unwrap_or(from.len()));
        let opened = skipped.chars().next_back().or(before).filter(|c| is_quote(*c));
        out.push_str(skipped);
        out.push_str(name);
        (rest, before) = (after, name.chars().next_back());
        if let Some(value) = value(name, opened, after) {
            out.push_str(after.get(..value.from).unwrap_or_default());
            out.push_str(if value.bare { "\"(hidden)\"" } else { HIDDEN });
            rest = after.get(value.to..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// Whether a name may belong to one.
const fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

const fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

/// Where a secret is, in bytes.
struct Value {
    from: usize,
    to: usize,
    /// It stands in a document without quotes, where a text is to have some.
    bare: bool,
}

/// The secret that belongs to this name, which stands before `after`; `opened` is the quote right before the name.
fn value(name: &str, opened: Option<char>, after: &str) -> Option<Value> {
    let name = name.to_ascii_lowercase();
    let is_header = HEADERS.iter().any(|word| name.contains(word));
    let leads_to_one = name.ends_with("file") || name.ends_with("path");
    if !is_header && (leads_to_one || !NAMES.iter().any(|word| name.contains(word))) {
        return None;
    }
    let mut cursor = Cursor { text: after, at: 0 };
    let in_quotes = cursor.quote().is_some();
    cursor.blanks();
    if cursor.eat(":") {
        if cursor.eat(":") {
            return None; // A path of a program's.
        }
        cursor.eat("=");
    } else if cursor.eat("=") {
        while cursor.eat("=") || cursor.eat(">") {}
    } else {
        let apart = cursor.at > 0 || cursor.rest().starts_with(',');
        cursor.eat(",");
        cursor.blanks();
        if !name.starts_with("--") || !apart || cursor.rest().starts_with("--") {
            return None;
        }
    }
    cursor.blanks();
    let (from, to) = if is_header && !in_quotes {
        (cursor.at, cursor.end_of_line(opened))
    } else if let Some(quote) = cursor.quote() {
        (cursor.at, cursor.closing(quote))
    } else {
        (cursor.at, cursor.end_of_word(opened, in_quotes))
    };
    let found = after.get(from..to)?;
    let nothing = found.is_empty() || in_quotes && matches!(found, "true" | "false" | "null");
    let bare = in_quotes && !after.get(..from).is_some_and(|before| before.ends_with(is_quote));
    (!nothing).then_some(Value { from, to, bare })
}

/// A quote: how many backslashes stand before it, in a text inside a text; the character; and how often it stands.
#[derive(Clone, Copy)]
struct Quote(usize, char, usize);

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, what: &str) -> bool {
        let is_there = self.rest().starts_with(what);
        self.at += if is_there { what.len() } else { 0 };
        is_there
    }

    /// Skips spaces, and what colours a terminal.
    fn blanks(&mut self) {
        loop {
            let rest = self.rest();
            let spaces = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            let colour = rest.strip_prefix("\u{1b}[").and_then(|codes| Some(codes.find('m')? + 3));
            match (spaces, colour) {
                (0, None) => return,
                (0, Some(colour)) => self.at += colour,
                (spaces, _) => self.at += spaces,
            }
        }
    }

    fn quote(&mut self) -> Option<Quote> {
        let rest = self.rest();
        let slashes = rest.len() - rest.trim_start_matches('\\').len();
        let mark = rest.get(slashes..)?.chars().next().filter(|c| is_quote(*c))?;
        let three = rest.get(slashes..)?.starts_with(&[mark; 3].iter().collect::<String>());
        let count = if three { 3 } else { 1 };
        self.at += slashes + count;
        Some(Quote(slashes, mark, count))
    }

    /// Where a text in these quotes ends: before the closing ones, else at the end of its line.
    fn closing(&self, Quote(slashes, mark, count): Quote) -> usize {
        let mut escapes = 0;
        for (at, c) in self.rest().char_indices() {
            let ends = if slashes == 0 { escapes % 2 == 0 } else { escapes == slashes };
            if c == mark && ends {
                let here = self.rest().get(at..).unwrap_or_default();
                if count == 1 || here.starts_with(&[mark; 3].iter().collect::<String>()) {
                    return self.at + at - escapes;
                }
            }
            if c == '\n' && count == 1 {
                return self.at + at;
            }
            escapes = if c == '\\' { escapes + 1 } else { 0 };
        }
        self.text.len()
    }

    fn end_of_line(&self, opened: Option<char>) -> usize {
        let end = self.rest().find(|c| c == '\n' || c == '\r' || Some(c) == opened);
        end.map_or(self.text.len(), |end| self.at + end)
    }

    /// Where a word ends: at a space, or at the quote that was open before it. Quotes inside belong to it, as in
    /// `Some("word")`.
    fn end_of_word(&self, opened: Option<char>, in_document: bool) -> usize {
        let (mut inside, mut last) = (None, ' ');
        for (at, c) in self.rest().char_indices() {
            match inside {
                Some(mark) if c == mark && last != '\\' => inside = None,
                Some(_) => {}
                None if c.is_whitespace() || Some(c) == opened => return self.at + at,
                None if in_document && matches!(c, ',' | '}' | ']') => return self.at + at,
                None if c == '"' && matches!(last, '(' | '[' | '{' | '<' | '=' | ':' | ',') => {
                    inside = Some(c)
                }
                None if c == '"' => return self.at + at,
                None => {}
            }
            if c == '\n' {
                return self.at + at;
            }
            last = c;
        }
        self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_stands_after_the_name_of_a_secret_is_hidden() {
        let lines = [
            "password=hunter2 user=bob",
            "PGPASSWORD='hunter2 two' psql",
            "warren login --password hunter2 --username bob",
            "warren login --password=hunter2 --token-file /run/t --token-stdin --name x",
            r#"args: ["--password", "hunter2", "--name", "x"]"#,
            r#"{"user":"bob","password":"hun\"ter2","token": 12345678, "has_password": true}"#,
            r#"msg="{\"api_key\":\"hunter2\",\"n\":1}""#,
            r#"Login { username: "bob", password: Some("hunter2"), cookie: false }"#,
            "GET https://x.example/?access_token=hunter2&page=2",
            r#""url": "https://x.example/?token=hunter2", "page": 2"#,
            "> Authorization: Basic aHVudGVyMg==",
            "curl -H 'authorization: Digest a=\"hunter2\", b' https://x.example",
            r#"{"authorization": "Bearer hunter2", "accept": "*/*"}"#,
            "set-cookie: session=hunter2; Path=/",
            "PrivateKey = aHVudGVyMg==",
            "\u{1b}[3mpassword\u{1b}[0m\u{1b}[2m=\u{1b}[0mhunter2 \u{1b}[3mn\u{1b}[0m=1",
            "client_secret: hunter2",
            "token = \"\"\"hunter2\"\"\" # mine",
            "password=",
            "warren_server::api::token::parse took 3 ms",
            "WARREN_PASSWORD_FILE=/run/secrets/pw",
            "code: TOKEN_EXPIRED, the node's key is nodekey:00ff",
        ];
        insta::assert_snapshot!(lines.map(hide).join("\n").replace('\u{1b}', "^"), @r#"
        password=(hidden) user=bob
        PGPASSWORD='(hidden)' psql
        warren login --password (hidden) --username bob
        warren login --password=(hidden) --token-file /run/t --token-stdin --name x
        args: ["--password", "(hidden)", "--name", "x"]
        {"user":"bob","password":"(hidden)","token": "(hidden)", "has_password": true}
        msg="{\"api_key\":\"(hidden)\",\"n\":1}"
        Login { username: "bob", password: (hidden) cookie: (hidden)
        GET https://x.example/?access_token=(hidden)
        "url": "https://x.example/?token=(hidden)", "page": 2
        > Authorization: (hidden)
        curl -H 'authorization: (hidden)' https://x.example
        {"authorization": "(hidden)", "accept": "*/*"}
        set-cookie: (hidden)
        PrivateKey = (hidden)
        ^[3mpassword^[0m^[2m=^[0m(hidden) ^[3mn^[0m=1
        client_secret: (hidden)
        token = """(hidden)""" # mine
        password=
        warren_server::api::token::parse took 3 ms
        WARREN_PASSWORD_FILE=/run/secrets/pw
        code: TOKEN_EXPIRED, the node's key is nodekey:00ff
        "#);
        assert!(!hide(&lines.join("\n")).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_text_may_be_looked_through(before in "(\\PC|[\"'\\\\=: \n])*", after in "(\\PC|[\"'\\\\=: \n])*") {
            let text = format!("{before} password={after}");
            let _ = hide(&text);
            let secret = hide(&format!("{before}\npassword=s3cr3t-s3cr3t\n{after}"));
            prop_assert!(before.contains("s3cr3t") || !secret.contains("s3cr3t-s3cr3t"), "{secret}");
        }
    }
}
