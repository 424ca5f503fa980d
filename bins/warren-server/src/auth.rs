//! Who may do what: tokens, passwords, and how often one may guess.

pub(crate) mod device;
pub(crate) mod guesses;
pub(crate) mod oidc;
pub(crate) mod password;
pub(crate) mod rates;
pub(crate) mod token;

pub(crate) use token::{Token, TokenKind};
