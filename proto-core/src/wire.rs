//! What bytes mean.

pub mod control;
