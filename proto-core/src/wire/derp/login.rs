//! The sealed greetings of a DERP connection.

use super::{Frame, KEY_LEN, VERSION};
use crate::key::{NodePublic, NodeSecret, SharedBox, hex, unhex};
use crate::seed::Rng;
use core::fmt;
use serde_json::{Map, Value};

/// Why a greeting was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoginError {
    /// The box does not open: the other side does not have the key it claims, or ours is another than it thinks.
    #[error("the greeting's box does not open with these keys")]
    Sealed,
    /// Not a JSON object.
    #[error("the greeting is not a JSON object: {0}")]
    Json(String),
    /// A field of a wrong type or form.
    #[error("the greeting's field \"{0}\" has a wrong type or form")]
    Field(&'static str),
}

/// The secret that the relays of a mesh share.
#[derive(Clone)]
pub struct MeshKey(pub [u8; KEY_LEN]);

impl PartialEq for MeshKey {
    /// In constant time: how long the comparison takes must not tell how much of a guess was right.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

impl Eq for MeshKey {}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(..)")
    }
}

/// What a node tells a relay about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientInfo {
    /// The protocol version it speaks.
    pub version: i64,
    /// Whether it answers pings.
    pub can_ack_pings: bool,
    /// Proves that it is a relay of the same mesh.
    pub mesh_key: Option<MeshKey>,
    /// Whether it is there to measure.
    pub is_prober: bool,
    /// The program, for statistics; not sent if empty.
    pub app_name: String,
}

impl Default for ClientInfo {
    fn default() -> Self {
        Self {
            version: VERSION,
            can_ack_pings: true,
            mesh_key: None,
            is_prober: false,
            app_name: String::new(),
        }
    }
}

impl ClientInfo {
    /// Appends the `ClientInfo` frame: this greeting, sealed by `us` for the relay.
    pub fn emit(&self, us: &NodeSecret, relay: &NodePublic, rng: &mut Rng, out: &mut Vec<u8>) {
        self.emit_with(us, relay, rng.bytes(), out);
    }

    pub(super) fn emit_with(
        &self,
        us: &NodeSecret,
        relay: &NodePublic,
        nonce: [u8; crate::key::NONCE_LEN],
        out: &mut Vec<u8>,
    ) {
        let mut sealed = Vec::with_capacity(128);
        us.shared(relay).seal_with(self.to_json().as_bytes(), nonce, &mut sealed);
        Frame::ClientInfo { key: us.public(), sealed: &sealed }.emit(out);
    }

    /// Opens and reads the box of a `ClientInfo` frame.
    ///
    /// # Errors
    /// If it does not open, or a field that matters here is broken.
    pub fn open(sealed: &[u8], shared: &SharedBox) -> Result<Self, LoginError> {
        Self::parse(&shared.open(sealed).ok_or(LoginError::Sealed)?)
    }

    /// Reads the JSON as Go does: names in any case, unknown ones ignored, null like absent. A mesh key that is
    /// there must be 64 hexadecimal digits.
    ///
    /// # Errors
    /// If it is no object or a field has a wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, LoginError> {
        let fields = object(json)?;
        let mesh_key = match field(&fields, "meshKey") {
            None => None,
            Some(Value::String(digits)) => Some(unhex(digits).ok_or(LoginError::Field("meshKey"))?),
            Some(_) => return Err(LoginError::Field("meshKey")),
        };
        Ok(Self {
            version: integer(&fields, "version")?,
            can_ack_pings: boolean(&fields, "CanAckPings")?,
            mesh_key: mesh_key.map(MeshKey),
            is_prober: boolean(&fields, "IsProber")?,
            app_name: match field(&fields, "AppName") {
                None => String::new(),
                Some(Value::String(name)) => name.clone(),
                Some(_) => return Err(LoginError::Field("AppName")),
            },
        })
    }

    /// The JSON in the order and with the omissions of Tailscale's clients.
    fn to_json(&self) -> String {
        let mut fields = Vec::new();
        if let Some(key) = &self.mesh_key {
            fields.push(format!("\"meshKey\":\"{}\"", hex(&key.0)));
        }
        if self.version != 0 {
            fields.push(format!("\"version\":{}", self.version));
        }
        fields.push(format!("\"CanAckPings\":{}", self.can_ack_pings));
        if self.is_prober {
            fields.push("\"IsProber\":true".into());
        }
        if !self.app_name.is_empty() {
            fields.push(format!("\"AppName\":{}", Value::from(self.app_name.as_str())));
        }
        format!("{{{}}}", fields.join(","))
    }
}

/// What a relay tells a node about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerInfo {
    /// The protocol version it speaks.
    pub version: i64,
    /// Bytes a second that the node may send, 0 for no limit. What exceeds it is to be dropped by the node.
    pub bytes_per_second: i64,
    /// Bytes it may send at once beyond that.
    pub burst: i64,
}

impl Default for ServerInfo {
    fn default() -> Self {
        Self { version: VERSION, bytes_per_second: 0, burst: 0 }
    }
}

impl ServerInfo {
    /// Appends the `ServerInfo` frame: this greeting in the box between relay and node.
    pub fn emit(&self, shared: &SharedBox, rng: &mut Rng, out: &mut Vec<u8>) {
        self.emit_with(shared, rng.bytes(), out);
    }

    pub(super) fn emit_with(
        &self,
        shared: &SharedBox,
        nonce: [u8; crate::key::NONCE_LEN],
        out: &mut Vec<u8>,
    ) {
        let mut fields = vec![format!("\"version\":{}", self.version)];
        if self.bytes_per_second != 0 {
            fields.push(format!("\"TokenBucketBytesPerSecond\":{}", self.bytes_per_second));
        }
        if self.burst != 0 {
            fields.push(format!("\"TokenBucketBytesBurst\":{}", self.burst));
        }
        let mut sealed = Vec::with_capacity(128);
        shared.seal_with(format!("{{{}}}", fields.join(",")).as_bytes(), nonce, &mut sealed);
        Frame::ServerInfo { sealed: &sealed }.emit(out);
    }

    /// Opens and reads the box of a `ServerInfo` frame.
    ///
    /// # Errors
    /// If it does not open, or a field is broken.
    pub fn open(sealed: &[u8], shared: &SharedBox) -> Result<Self, LoginError> {
        Self::parse(&shared.open(sealed).ok_or(LoginError::Sealed)?)
    }

    /// Reads the JSON as [`ClientInfo::parse`] does.
    ///
    /// # Errors
    /// If it is no object or a field has a wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, LoginError> {
        let fields = object(json)?;
        Ok(Self {
            version: integer(&fields, "version")?,
            bytes_per_second: integer(&fields, "TokenBucketBytesPerSecond")?,
            burst: integer(&fields, "TokenBucketBytesBurst")?,
        })
    }
}

fn object(json: &[u8]) -> Result<Map<String, Value>, LoginError> {
    let fields: Option<Map<String, Value>> =
        serde_json::from_slice(json).map_err(|e| LoginError::Json(e.to_string()))?;
    Ok(fields.unwrap_or_default())
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = fields.get(name);
    let other = || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    exact.or_else(other).filter(|value| !value.is_null())
}

fn integer(fields: &Map<String, Value>, name: &'static str) -> Result<i64, LoginError> {
    match field(fields, name) {
        None => Ok(0),
        Some(value) => value.as_i64().ok_or(LoginError::Field(name)),
    }
}

fn boolean(fields: &Map<String, Value>, name: &'static str) -> Result<bool, LoginError> {
    match field(fields, name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or(LoginError::Field(name)),
    }
}
