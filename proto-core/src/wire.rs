//! What bytes mean.

pub mod api;
pub mod control;
