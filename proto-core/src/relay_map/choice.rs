//! A region by what a person calls it.

use super::RelayMap;
use crate::id::RegionId;
use core::fmt;

/// How many regions a sentence names before it stops.
const NAMED_MAX: usize = 30;
/// How much of what a person wrote a sentence repeats, in characters.
const SAID_MAX: usize = 60;

/// No region with a relay has this code, name or number. Its words name those that there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownRegion {
    said: String,
    known: Vec<String>,
}

impl fmt::Display for UnknownRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said: String = self.said.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
        write!(f, "there is no relay region \"{said}\"")?;
        let named = &self.known[..self.known.len().min(NAMED_MAX)];
        match self.known.len() - named.len() {
            _ if named.is_empty() => f.write_str(": the relay map names no relay at all"),
            0 => write!(f, ": the regions are {}", named.join(", ")),
            more => write!(f, ": the regions are {} and {more} more", named.join(", ")),
        }
    }
}

impl core::error::Error for UnknownRegion {}

impl RelayMap {
    /// The region of this code, name or number, in this order, letters in any case. Only regions with a relay
    /// count; that the map advises against one does not matter to whoever names it.
    ///
    /// # Errors
    /// If there is none.
    pub fn region_called(&self, said: &str) -> Result<RegionId, UnknownRegion> {
        let said = said.trim();
        let relays = || self.regions.iter().filter(|(_, region)| region.has_relay());
        let by_code = relays().find(|(_, region)| same(&region.code, said));
        let by_name = || relays().find(|(_, region)| same(&region.name, said));
        let by_number = || relays().find(|(id, _)| id.to_string() == said);
        match by_code.or_else(by_name).or_else(by_number) {
            Some((id, _)) => Ok(*id),
            None => Err(UnknownRegion {
                said: said.to_owned(),
                known: relays().map(|(id, _)| self.label(*id)).collect(),
            }),
        }
    }
}

/// Whether two names are one, by whatever case each letter has.
fn same(a: &str, b: &str) -> bool {
    !b.is_empty() && a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> RelayMap {
        let node = |id, more: &str| format!(r#"[{{"Name":"{id}a","HostName":"h"{more}}}]"#);
        let text = format!(
            r#"{{"Regions":{{
                "4":{{"RegionCode":"fra","RegionName":"Frankfurt","Nodes":{}}},
                "11":{{"RegionCode":"sao","RegionName":"São Paulo","Avoid":true,"Nodes":{}}},
                "12":{{"RegionCode":"4","RegionName":"four","Nodes":{}}},
                "20":{{"RegionCode":"stun","RegionName":"Only STUN","Nodes":{}}}}}}}"#,
            node(4, ""),
            node(11, ""),
            node(12, ""),
            node(20, r#","STUNOnly":true"#)
        );
        RelayMap::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_region_is_called_by_code_name_or_number() {
        let map = map();
        for (said, id) in
            [("fra", 4), (" FRA ", 4), ("frankfurt", 4), ("SÃO PAULO", 11), ("11", 11), ("4", 12)]
        {
            assert_eq!(map.region_called(said), Ok(RegionId(id)), "{said}");
        }
    }

    #[test]
    fn an_unknown_region_is_answered_with_those_that_there_are() {
        let said = |map: &RelayMap, said: &str| map.region_called(said).unwrap_err().to_string();
        let known = "the regions are fra, sao, 4";
        assert_eq!(said(&map(), "nyc"), format!("there is no relay region \"nyc\": {known}"));
        assert_eq!(
            said(&map(), "stun"),
            format!("there is no relay region \"stun\": {known}"),
            "it relays nothing"
        );
        assert_eq!(said(&map(), ""), format!("there is no relay region \"\": {known}"));
        assert_eq!(
            said(&RelayMap::default(), "a\nb"),
            "there is no relay region \"ab\": the relay map names no relay at all"
        );
    }
}
