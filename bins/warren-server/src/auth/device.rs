//! Logins that a program asks for and a person confirms in a browser (RFC 8628): kept in memory, since they live for
//! minutes.

use super::token::{same, sha256_of};
use super::{Token, TokenKind};
use crate::fault::Fault;
use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long a login waits to be confirmed, in milliseconds.
pub(crate) const WAIT_MS: i64 = 10 * 60 * 1_000;
/// Seconds from one question of a program to the next: less than the five of RFC 8628, since a person waits.
pub(crate) const INTERVAL_S: u64 = 2;
/// Logins that wait at a time. When there are more, the oldest is forgotten.
const WAITING_MAX: usize = 10_000;
/// The same from one address, so that nobody drives out what others wait for.
const WAITING_MAX_EACH: usize = 32;
/// Letters of a code that a person types: no vowels, so that it spells nothing (RFC 8628, section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// How many of them: 34 bits, good for minutes and a few wrong attempts.
const CODE_LEN: usize = 8;

/// What a program is told.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) device_code: Token,
    /// With a dash in the middle.
    pub(crate) user_code: String,
}

/// How far a login is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Nobody has confirmed it.
    Waiting,
    /// It is the user of this name. It is told once.
    Confirmed(String),
    /// There is none, or no more.
    Unknown,
}

#[derive(Debug)]
struct Request {
    sha256: [u8; 32],
    from: Option<IpAddr>,
    since: i64,
    user: Option<String>,
}

/// All that wait, by the code that a person types, without its dash.
#[derive(Debug, Default)]
pub(crate) struct Devices(Mutex<BTreeMap<String, Request>>);

impl Devices {
    /// A program asks for a login.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub(crate) fn begin(&self, from: Option<IpAddr>, now: i64) -> Result<Begun, Fault> {
        let device_code = Token::generate(TokenKind::Device)?;
        let code = user_code()?;
        let mut waiting = self.lock(now);
        let own = waiting.values().filter(|request| request.from == from).count();
        let oldest = |mine: bool, waiting: &BTreeMap<String, Request>| {
            let those = waiting.iter().filter(|(_, request)| !mine || request.from == from);
            those.min_by_key(|(_, request)| request.since).map(|(code, _)| code.clone())
        };
        if (own >= WAITING_MAX_EACH || waiting.len() >= WAITING_MAX)
            && let Some(gone) = oldest(own >= WAITING_MAX_EACH, &waiting)
        {
            waiting.remove(&gone);
        }
        let request = Request { sha256: device_code.sha256(), from, since: now, user: None };
        waiting.insert(code.clone(), request);
        let (first, second) = code.split_at(CODE_LEN / 2);
        Ok(Begun { device_code, user_code: format!("{first}-{second}") })
    }

    /// Whether a login waits to be confirmed by this code, as somebody typed it.
    pub(crate) fn waits(&self, typed: &str, now: i64) -> bool {
        self.lock(now).get(&plain(typed)).is_some_and(|request| request.user.is_none())
    }

    /// The user of this name confirms it; false if there is none to confirm.
    pub(crate) fn confirm(&self, typed: &str, user: &str, now: i64) -> bool {
        match self.lock(now).get_mut(&plain(typed)) {
            Some(request) if request.user.is_none() => {
                request.user = Some(user.to_owned());
                true
            }
            _ => false,
        }
    }

    /// How far the login is that this device code was given for.
    pub(crate) fn progress(&self, device_code: &str, now: i64) -> Progress {
        let sha256 = sha256_of(device_code);
        let mut waiting = self.lock(now);
        let found = waiting.iter().find(|(_, request)| same(&request.sha256, &sha256));
        let Some((code, request)) = found.map(|(code, request)| (code.clone(), request)) else {
            return Progress::Unknown;
        };
        let Some(user) = request.user.clone() else { return Progress::Waiting };
        waiting.remove(&code);
        Progress::Confirmed(user)
    }

    /// What has waited too long is forgotten first.
    fn lock(&self, now: i64) -> MutexGuard<'_, BTreeMap<String, Request>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, request| now - request.since < WAIT_MS);
        waiting
    }
}

/// Letters as they were meant, however they were typed.
fn plain(typed: &str) -> String {
    typed
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(2 * CODE_LEN)
        .collect::<String>()
        .to_ascii_uppercase()
}

fn user_code() -> Result<String, Fault> {
    let mut code = String::with_capacity(CODE_LEN);
    while code.len() < CODE_LEN {
        let mut bytes = [0; CODE_LEN];
        getrandom::fill(&mut bytes).map_err(|error| {
            Fault::new("NO_ENTROPY", format!("the system gives no random bytes: {error}"), "try again")
        })?;
        // 240 is the greatest multiple of 20 in a byte: beyond it some letters would be likelier.
        let fair = bytes.into_iter().filter(|byte| *byte < 240);
        code.extend(fair.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])));
    }
    code.truncate(CODE_LEN);
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn a_login_is_confirmed_once_and_fetched_once() {
        let devices = Devices::default();
        let Begun { device_code, user_code } = devices.begin(Some(host(1)), 0).unwrap();
        assert_eq!((user_code.len(), user_code.find('-')), (9, Some(4)), "{user_code}");
        assert_eq!(devices.progress(device_code.text(), 1), Progress::Waiting);
        let typed = user_code.to_lowercase().replace('-', " ");
        assert!(devices.waits(&typed, 1));
        assert!(devices.confirm(&typed, "alice", 1));
        assert!(!devices.waits(&typed, 1));
        assert!(!devices.confirm(&user_code, "mallory", 2), "it is alice's already");
        assert_eq!(devices.progress(&user_code, 3), Progress::Unknown);
        assert_eq!(devices.progress(device_code.text(), 3), Progress::Confirmed("alice".into()));
        assert_eq!(devices.progress(device_code.text(), 3), Progress::Unknown);
    }

    #[test]
    fn what_waits_too_long_is_forgotten() {
        let devices = Devices::default();
        let begun = devices.begin(Some(host(1)), 0).unwrap();
        assert!(devices.waits(&begun.user_code, WAIT_MS - 1));
        assert!(!devices.confirm(&begun.user_code, "alice", WAIT_MS));
        assert_eq!(devices.progress(begun.device_code.text(), WAIT_MS), Progress::Unknown);
    }

    #[test]
    fn who_asks_a_thousand_times_drives_out_nobody_else() {
        let devices = Devices::default();
        let honest = devices.begin(Some(host(1)), 0).unwrap();
        for n in 0..1_000 {
            devices.begin(Some(host(2)), n).unwrap();
        }
        assert!(devices.waits(&honest.user_code, 1_000));
        assert_eq!(devices.0.lock().unwrap().len(), 1 + WAITING_MAX_EACH);
    }
}
