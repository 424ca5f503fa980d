//! The relay map: Tailscale's DERPMap document.
use serde::{Deserialize, Serialize};

/// A relay map.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RelayMap {}
