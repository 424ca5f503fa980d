//! The dashboard and the user's guide: the files that a browser loads, embedded.
//!
//! They are written in `web/` and `guide/`; `build.rs` builds them with npm. Serving them is the server's work.

#![forbid(unsafe_code)]

/// A file as browsers get it.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Where it is, without the first slash, such as `assets/index-C0ffee.js`.
    pub path: &'static str,
    /// What it is.
    pub media_type: &'static str,
    /// Changes with its bytes.
    pub hash: &'static str,
    /// The file itself.
    pub bytes: &'static [u8],
    /// The same in brotli, if that is shorter.
    pub brotli: Option<&'static [u8]>,
    /// The same in gzip, if that is shorter.
    pub gzip: Option<&'static [u8]>,
}

impl Asset {
    /// Whether its name changes with its bytes, so that who has it need never ask again.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.path.starts_with("assets/")
    }
}

/// The page that everything starts with.
pub const INDEX: &str = "index.html";

mod embedded {
    use super::Asset;
    include!(concat!(env!("OUT_DIR"), "/assets.rs"));

    pub(super) const fn assets() -> &'static [Asset] {
        ASSETS
    }
}

/// Whether the dashboard was built. If not, [`INDEX`] says how to build it and is all there is.
pub const BUILT: bool = embedded::BUILT;

/// All files, ordered by path.
#[must_use]
pub const fn assets() -> &'static [Asset] {
    embedded::assets()
}

/// The file at a path without its first slash.
#[must_use]
pub fn find(path: &str) -> Option<&'static Asset> {
    let at = assets().binary_search_by(|asset| asset.path.cmp(path)).ok()?;
    assets().get(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_path() {
        assert!(find(INDEX).is_some_and(|index| index.media_type.starts_with("text/html")));
        for asset in assets() {
            assert_eq!(find(asset.path).map(|found| found.hash), Some(asset.hash), "{}", asset.path);
        }
        assert!(find("no/such/file").is_none());
        assert!(find("").is_none());
    }

    /// The dashboard's promise: the first view is light. The terminal, charts and further pages come when asked for.
    #[test]
    fn the_first_view_is_at_most_60_kilobytes_compressed() {
        const PROMISED: usize = 60 * 1024;
        if !BUILT {
            return;
        }
        let index = find(INDEX).expect("there is an index");
        let page = String::from_utf8_lossy(index.bytes);
        let mut total = index.brotli.map_or(index.bytes.len(), <[u8]>::len);
        let mut named = 0;
        for asset in assets().iter().filter(|asset| page.contains(&format!("/{}\"", asset.path))) {
            named += 1;
            total += asset.gzip.map_or(asset.bytes.len(), <[u8]>::len);
        }
        assert!(named >= 2, "the page names its script and its style");
        assert!(total <= PROMISED, "{total} bytes in gzip");
    }
}
