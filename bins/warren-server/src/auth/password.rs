//! Passwords: Argon2id (RFC 9106) off the event loop, a few at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

/// Hashes computed at once: each takes 19 MiB and tens of milliseconds of a core, and logins must not starve
/// everything else.
const AT_ONCE: usize = 2;
/// The shortest password taken, in bytes (NIST SP 800-63B asks for 8 characters).
const LENGTH_MIN: usize = 8;
/// The longest password taken, in bytes.
const LENGTH_MAX: usize = 1024;

/// The place where passwords are hashed and checked.
#[derive(Debug)]
pub(crate) struct Passwords {
    turns: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE) }
    }
}

/// Why a new password will not do, if it will not.
pub(crate) fn objection(password: &str) -> Option<String> {
    (password.len() < LENGTH_MIN || password.len() > LENGTH_MAX)
        .then(|| format!("a password has {LENGTH_MIN} to {LENGTH_MAX} bytes"))
}

impl Passwords {
    /// The PHC string of a password, with a salt of its own.
    ///
    /// # Errors
    /// If the system has no randomness for the salt.
    pub(crate) async fn hash(&self, password: String) -> Result<String, String> {
        self.run(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|error| error.to_string())
        })
        .await
        .unwrap_or_else(|| Err("the hashing was interrupted".to_owned()))
    }

    /// Whether `password` is the one of `hash`. Without a hash (no such user) it takes as long and says no.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> bool {
        if password.len() > LENGTH_MAX {
            return false;
        }
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.unwrap_or_else(|| NOBODYS.to_owned());
            let Ok(parsed) = PasswordHash::new(&hash) else { return false };
            Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && known
        })
        .await
        .unwrap_or(false)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _turn = self.turns.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}

/// A hash with the parameters of [`Argon2::default`], of a password that nobody has.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IG5vYm9keQ$\
                       AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_passes_and_nobody_has_none() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await);
        assert!(!passwords.verify("battery staple".to_owned(), Some(hash)).await);
        assert!(!passwords.verify("correct horse".to_owned(), None).await);
        assert!(PasswordHash::new(NOBODYS).is_ok(), "a broken stand-in would answer faster than a real hash");
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        assert!(objection("1234567").is_some());
        assert!(objection(&"x".repeat(1025)).is_some());
        assert_eq!(objection("12345678"), None);
    }
}
