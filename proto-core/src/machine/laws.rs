//! The seven laws.
