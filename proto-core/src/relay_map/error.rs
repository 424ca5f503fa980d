//! What can be wrong with a relay map, said so that the person who wrote it finds the place.

use core::fmt;

/// A field of the document, such as `Regions.900.Nodes[0].HostName`; the document itself if empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldPath(pub Vec<Segment>);

/// One step down the document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    /// Into an object's field.
    Key(String),
    /// Into a list's element, from 0.
    Index(usize),
}

impl FieldPath {
    /// The field `key` below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// The element `index` below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a field.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// Longer than `limits::RELAY_MAP_MAX`.
    #[error("the document has {0} bytes, more than the {max} allowed", max = crate::limits::RELAY_MAP_MAX)]
    TooLong(usize),
    /// Not JSON; the words are the JSON reader's.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// Nested deeper than `limits::RELAY_MAP_DEPTH_MAX`.
    #[error("is nested too deep for a relay map")]
    TooDeep,
    /// A value of another type.
    #[error("must be {expected}, not {found}")]
    Type {
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A number outside its range.
    #[error("must be from {min} to {max}, not {found}")]
    Range {
        /// The least allowed.
        min: i64,
        /// The greatest allowed.
        max: i64,
        /// What is there.
        found: String,
    },
    /// Nothing where something is needed.
    #[error("is missing or empty")]
    Empty,
    /// A map with no region.
    #[error("has no region: a relay map needs at least one")]
    NoRegions,
    /// A region with no node.
    #[error("has no node: a region needs at least one relay or STUN server")]
    NoNodes,
    /// A region's key that is not a number.
    #[error("is not a region's number, which is from 1 to 9007199254740991")]
    RegionKey,
    /// A number of a region or of a node's region that is not the region's key.
    #[error("is {found}, but the region's key is {key}")]
    RegionMismatch {
        /// The region's key.
        key: u64,
        /// What is there.
        found: u64,
    },
    /// Something that must be unique is not.
    #[error("\"{value}\" is already taken by {other}")]
    Taken {
        /// What is there.
        value: String,
        /// Who has it, with its line if known.
        other: String,
    },
    /// Not a host name.
    #[error("\"{0}\" is not a host name or an IP address")]
    Host(String),
    /// Not an address of the family.
    #[error("must be {expected}, not \"{found}\"")]
    Address {
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A broken pin.
    #[error("must end with the 64 hexadecimal digits of a SHA-256 after \"sha256-raw:\"")]
    Pin,
    /// Too many of something.
    #[error("has {found} entries, more than the {max} allowed")]
    TooMany {
        /// The cap.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// Longer than a name may be, or with characters that a terminal would obey.
    #[error("is longer than {0} bytes or has control characters")]
    Text(usize),
}

/// Why a relay map was refused: the field, the line if it was read from a text, and what is wrong there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayMapError {
    /// The field.
    pub field: FieldPath,
    /// The line, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for RelayMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.0.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        self.problem.fmt(f)
    }
}

impl core::error::Error for RelayMapError {}

/// The beginning of a text from the document, fit for a terminal: a name or a value may be long, and may hold
/// what a terminal would obey.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}
