//! The relay map that nodes are given: the embedded region, and the maps of a file and a URL.

mod embedded;
#[cfg(test)]
mod tests;

pub(crate) use embedded::embedded;

use crate::fault::{Fault, io_words};
use crate::settings::Settings;
use io_adapters::http::{HttpClient, Request};
use io_adapters::private_file;
use proto_core::limits::RELAY_MAP_MAX;
use proto_core::relay_map::RelayMap;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use warren_settings::words;

/// How often we let ourselves be sent elsewhere.
const REDIRECTS_MAX: usize = 3;

/// Where relay maps come from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    embedded: RelayMap,
    path: Option<PathBuf>,
    url: Option<String>,
    copy: PathBuf,
}

/// A map, and what an operator should know about it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Loaded {
    /// The merged map.
    pub(crate) map: RelayMap,
    /// Why it is not quite what was asked for.
    pub(crate) warning: Option<String>,
}

impl Sources {
    /// The sources that `settings` name, beside the region of this server itself; copies are kept in `state`.
    pub(crate) fn new(settings: &Settings, embedded: RelayMap, state: &Path) -> Self {
        let url = settings.derp_config_url.clone();
        // One copy a URL: another URL's map is not this one's last good copy.
        let digest = Sha256::digest(url.clone().unwrap_or_default().as_bytes());
        let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let copy = state.join(format!("derp-map-{digits}.json"));
        Self { embedded, path: settings.derp_config_path.clone(), url, copy }
    }

    /// Whether there is anything that may change while the server runs.
    pub(crate) const fn may_change(&self) -> bool {
        self.path.is_some() || self.url.is_some()
    }

    /// When the file was changed and how long it is: another stamp means that it is to be read again.
    pub(crate) fn stamp(&self) -> Option<(SystemTime, u64)> {
        let file = std::fs::metadata(self.path.as_ref()?).ok()?;
        Some((file.modified().ok()?, file.len()))
    }

    /// Reads, fetches and merges. If the URL gives no good map, its last good copy stands in with a warning.
    ///
    /// # Errors
    /// If the file is bad, the URL is and there is no copy, the maps collide, or there is no region at all.
    pub(crate) async fn load(&self) -> Result<Loaded, Fault> {
        let mut map = self.embedded.clone();
        let mut warning = None;
        if let Some(path) = &self.path {
            let name = path.display().to_string();
            let text = read(path, &name)?;
            map = merge(&map, &text, &name)?;
        }
        if let Some(url) = &self.url {
            match self.fetched(&map, url).await {
                Ok(merged) => map = merged,
                Err(fault) => {
                    let Ok(text) = std::fs::read(&self.copy) else { return Err(fault) };
                    map = merge(&map, &text, &self.copy.display().to_string())?;
                    warning = Some(format!("{}; its last good copy is used", fault.message));
                }
            }
        }
        if map.regions.is_empty() {
            return Err(Fault::new(
                "RELAY_MAP_EMPTY",
                "there is no relay: the embedded one is off and no relay map names another",
                "give a map with `--derp-config-path FILE` or `--derp-config-url URL`, or leave the embedded relay on",
            ));
        }
        Ok(Loaded { map, warning })
    }

    async fn fetched(&self, onto: &RelayMap, url: &str) -> Result<RelayMap, Fault> {
        let text = fetch(url).await.map_err(|why| {
            Fault::new(
                "RELAY_MAP_UNREACHABLE",
                format!("can't fetch the relay map {url}: {why}"),
                "check the URL with `curl`, or use a file with `--derp-config-path FILE`",
            )
        })?;
        let merged = merge(onto, &text, url)?;
        if let Err(error) = private_file::write(&self.copy, &text) {
            tracing::warn!(file = %self.copy.display(), "can't keep a copy of the relay map: {}", io_words(&error));
        }
        Ok(merged)
    }
}

/// The document at `url`; or why there is none, in words.
async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    const CLIENT: HttpClient = HttpClient::new(concat!("warren-server/", env!("CARGO_PKG_VERSION")))
        .answer_max(RELAY_MAP_MAX)
        .redirects_max(REDIRECTS_MAX);
    let request = Request { method: "GET", url, bearer: None, json: None };
    let answer = CLIENT.send(request).await.map_err(|error| words(&error.to_string()))?;
    if answer.status == 200 { Ok(answer.body) } else { Err(format!("the answer is HTTP {}", answer.status)) }
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, Fault> {
    let unreadable = |why: String| {
        Fault::new(
            "RELAY_MAP_UNREADABLE",
            format!("can't read the relay map {name}: {why}"),
            "check the path and its permissions",
        )
    };
    let mut text = Vec::new();
    // One byte more than may be, so that too long a file is told from one that just fits.
    File::open(path)
        .and_then(|file| file.take(RELAY_MAP_MAX as u64 + 1).read_to_end(&mut text))
        .map_err(|error| unreadable(io_words(&error)))?;
    if text.len() > RELAY_MAP_MAX {
        return Err(unreadable(format!("it is longer than {} MiB", RELAY_MAP_MAX >> 20)));
    }
    Ok(text)
}

/// `onto` and the map of `text`, which came from `name`.
fn merge(onto: &RelayMap, text: &[u8], name: &str) -> Result<RelayMap, Fault> {
    let extra = RelayMap::parse(text);
    let merged = extra.and_then(|extra| {
        onto.merge(&extra).map_err(|mut error| {
            error.line = RelayMap::line_in(text, &error.field);
            error
        })
    });
    merged.map_err(|error| {
        Fault::new(
            "RELAY_MAP_INVALID",
            format!("the relay map {name}: {error}"),
            "the form is Tailscale's DERPMap, {\"Regions\": {\"900\": {\"RegionID\": 900, \"RegionCode\": …, \"Nodes\": […]}}}, \
             and region numbers, codes and node names must be unique",
        )
    })
}
