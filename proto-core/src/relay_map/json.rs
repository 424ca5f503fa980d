//! JSON with line numbers.
