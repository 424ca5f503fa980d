//! What a relay's gate wants of the world: a verifier asked by HTTP, the admitted keys in a file, and lists of keys.

use crate::http::{HttpClient, Request};
use crate::private_file;
use crate::relay_listener::RelayHandle;
use crate::relay_listener::gate::Wants;
use crate::words::io_words;
use proto_core::key::NodePublic;
use proto_core::limits::ADMITTED_MAX;
use proto_core::relay::{AdmissionCommand, Admitted, Answer, Question};
use proto_core::wire::verify::{self, VerifyRequest};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

/// A verifier has to answer within this time (Tailscale's).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Keys of a list: more is a mistake, and would be slow to read.
const LIST_MAX: usize = 1 << 20;
/// What the file of admitted keys begins with.
const HEADING: &str = "# Keys that the verifier has let in, with the time of its last yes (unix seconds).\n";

/// Those who say which keys may use a relay: one yes of them is enough.
#[derive(Clone, Debug)]
pub struct Verifier {
    urls: Vec<String>,
    client: HttpClient,
}

impl Verifier {
    /// Verifiers at these addresses.
    #[must_use]
    pub const fn new(urls: Vec<String>, user_agent: &'static str) -> Self {
        let client = HttpClient::new(user_agent).timeout(TIMEOUT).answer_max(verify::ANSWER_MAX);
        Self { urls, client }
    }

    /// What they say about a key, all asked at once.
    pub async fn ask(&self, question: &Question) -> Answer {
        let asked = self.urls.iter().map(|url| self.ask_one(url, question));
        let answers = futures_util::future::join_all(asked).await;
        let nobody = || Answer::Unreachable { why: "there is no verifier".to_owned() };
        answers.into_iter().reduce(Answer::or).unwrap_or_else(nobody)
    }

    async fn ask_one(&self, url: &str, question: &Question) -> Answer {
        let asked = VerifyRequest::new(question.key, question.source);
        let json = serde_json::to_string(&asked).ok();
        match self.client.send(Request { method: "POST", url, bearer: None, json }).await {
            Ok(answer) => verify::judge(answer.status, &answer.body),
            Err(error) => Answer::Unreachable { why: format!("{url}: {error}") },
        }
    }
}

/// Does what a relay's gate wants, until the relay has stopped and all is saved.
///
/// # Panics
/// If asking panicked.
pub async fn serve(relay: RelayHandle, mut wants: Wants, verifier: Verifier, file: PathBuf) {
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            question = wants.questions.recv() => {
                let Some(question) = question else { break };
                let (relay, verifier) = (relay.clone(), verifier.clone());
                asking.spawn(async move {
                    let answer = verifier.ask(&question).await;
                    tracing::debug!(key = %question.key, ?answer, "asked the verifier");
                    let answered = AdmissionCommand::Answered { question: question.id, answer };
                    relay.admission(answered).await;
                });
            }
            Some(done) = asking.join_next() => {
                if let Err(e) = done && e.is_panic() {
                    std::panic::resume_unwind(e.into_panic());
                }
            }
            Ok(()) = wants.saves.changed() => save(&mut wants, &file).await,
        }
    }
    // The last word came before the end.
    save(&mut wants, &file).await;
}

async fn save(wants: &mut Wants, file: &Path) {
    let Some(all) = wants.saves.borrow_and_update().clone() else { return };
    let path = file.to_owned();
    let written = tokio::task::spawn_blocking(move || write_admitted(&path, &all)).await;
    if let Ok(Err(error)) = written {
        tracing::error!(
            "can't write the admitted keys to {}: {}; after a restart they are asked about again",
            file.display(),
            io_words(&error)
        );
    }
}

/// Writes the file of admitted keys, whole.
///
/// # Errors
/// What the operating system says.
pub fn write_admitted(path: &Path, admitted: &[Admitted]) -> io::Result<()> {
    let mut text = HEADING.to_owned();
    for Admitted { key, yes_at } in admitted {
        text.push_str(&format!("{key} {yes_at}\n"));
    }
    text.push_str(&format!("# {} in all\n", admitted.len()));
    private_file::write(path, text.as_bytes())
}

/// Reads the file of admitted keys. A damaged one is set aside, with a word to the log; what can be read of it counts.
///
/// # Errors
/// If it is there and can't be read, or not be set aside.
pub fn read_admitted(path: &Path) -> io::Result<Vec<Admitted>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let (mut admitted, mut damaged) = (Vec::new(), 0);
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match admitted_line(line) {
            Some(one) if admitted.len() < ADMITTED_MAX => admitted.push(one),
            _ => damaged += 1,
        }
    }
    let complete = text.ends_with(&format!("# {} in all\n", admitted.len()));
    if damaged > 0 || !complete {
        let aside = path.with_extension("damaged");
        std::fs::rename(path, &aside)?;
        tracing::warn!(
            "the file of admitted keys {} is damaged: it was set aside as {}; {} keys of it could be read, the \
             others are asked about when they come",
            path.display(),
            aside.display(),
            admitted.len()
        );
        write_admitted(path, &admitted)?;
    }
    Ok(admitted)
}

fn admitted_line(line: &str) -> Option<Admitted> {
    let (key, yes_at) = line.split_once(' ')?;
    Some(Admitted { key: key.parse().ok()?, yes_at: yes_at.parse().ok()? })
}

/// Why a list of keys can't be used: a sentence with the file's name and the line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListError(String);

/// Reads a list of node keys, one a line; what follows a `#` is a comment.
///
/// # Errors
/// If the file can't be read or a line is no key.
pub fn read_list(path: &Path) -> Result<BTreeSet<NodePublic>, ListError> {
    let place = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ListError(format!("can't read the list of keys {place}: {}", io_words(&error))))?;
    let mut keys = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let key = word
            .parse()
            .map_err(|why| ListError(format!("the list of keys {place}, line {number}: {why}")))?;
        keys.insert(key);
        if keys.len() > LIST_MAX {
            return Err(ListError(format!("the list of keys {place} has more than {LIST_MAX} keys")));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Origin;
    use crate::relay_listener;
    use proto_core::key::NodeSecret;
    use proto_core::relay::RelayServerConfig;
    use proto_core::seed::Seed;

    fn admitted(n: u8) -> Admitted {
        Admitted { key: NodePublic([n; 32]), yes_at: 1_800_000_000 + u64::from(n) }
    }

    #[test]
    fn admitted_keys_come_back_and_a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admitted");
        assert_eq!(read_admitted(&path).unwrap(), []);
        let all: Vec<_> = (1..4).map(admitted).collect();
        write_admitted(&path, &all).unwrap();
        assert_eq!(read_admitted(&path).unwrap(), all);
        let text = std::fs::read_to_string(&path).unwrap();
        let aside = dir.path().join("admitted.damaged");
        assert!(!aside.exists());
        // Cut off at a line's end, in a line, and changed.
        let third = text.find(&all[2].key.to_string()).unwrap();
        for (bad, left) in [
            (text[..third].to_owned(), 2),
            (text[..third + 20].to_owned(), 2),
            (text.replacen("nodekey:02", "nodekey:zz", 1), 2),
            ("\u{0}\u{ff}".to_owned(), 0),
            (String::new(), 0),
        ] {
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(read_admitted(&path).unwrap().len(), left, "{bad:?}");
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), bad, "nothing of it is lost");
            std::fs::remove_file(&aside).unwrap();
            assert_eq!(read_admitted(&path).unwrap().len(), left);
            assert!(!aside.exists(), "the file is whole again");
        }
    }

    #[tokio::test]
    async fn the_last_word_is_kept_even_if_it_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admitted");
        for (word, kept) in [(None, vec![admitted(1)]), (Some(Vec::new()), Vec::new())] {
            write_admitted(&path, &[admitted(1)]).unwrap();
            let config = RelayServerConfig::new(NodeSecret::from_bytes([1; 32]));
            let (relay, _task) = relay_listener::relay(config, Seed::from_u64(1), Origin::now());
            let (questions, asked) = tokio::sync::mpsc::channel(1);
            let (saves, saved) = tokio::sync::watch::channel(None);
            saves.send_replace(word);
            // The relay stops at once.
            drop((questions, saves));
            let wants = Wants { questions: asked, saves: saved };
            serve(relay, wants, Verifier::new(Vec::new(), "test"), path.clone()).await;
            assert_eq!(read_admitted(&path).unwrap(), kept);
        }
    }

    #[test]
    fn a_list_is_read_with_its_comments_and_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let (one, two) = (NodePublic([1; 32]), NodePublic([2; 32]));
        write(&format!("# ours\n\n{one}\n  {two} # the second\n{one}\n"));
        assert_eq!(read_list(&path).unwrap(), [one, two].into());
        write("");
        assert_eq!(read_list(&path).unwrap(), BTreeSet::new());
        let mut said = Vec::new();
        for bad in ["# ours\nnodekey:12\n", "discokey:12\n"] {
            write(bad);
            said.push(read_list(&path).unwrap_err().to_string());
        }
        said.push(read_list(&dir.path().join("absent")).unwrap_err().to_string());
        let said = said.join("\n").replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(said, @r#"
        the list of keys DIR/keys, line 2: the key is not 64 hexadecimal digits
        the list of keys DIR/keys, line 1: the key does not begin with "nodekey:"
        can't read the list of keys DIR/absent: no such file or directory
        "#);
    }
}
