//! From a text that a person wrote to a map.

use super::{FieldPath, Problem, RelayMap, RelayMapError};

impl RelayMap {
    /// Reads and validates a document.
    ///
    /// # Errors
    /// The first mistake, with its field and line.
    pub fn parse(text: &[u8]) -> Result<Self, RelayMapError> {
        serde_json::from_slice(text).map_err(|e| RelayMapError {
            field: FieldPath::default(),
            line: Some(e.line()),
            problem: Problem::NotJson(e.to_string()),
        })
    }
}
