//! From a text that a person wrote to a map.

use super::error::quoted;
use super::json::{self, Node, Value};
use super::{
    FieldPath, HomeParams, Millionths, Problem, REGION_ID_MAX, RelayMap, RelayMapError, RelayNode,
    RelayRegion, Segment, validate,
};
use crate::id::RegionId;
use crate::limits;
use std::collections::BTreeMap;

impl RelayMap {
    /// Reads and validates a document. Names of fields are taken in any case, as Go takes them; unknown fields
    /// are ignored; null is as good as absent.
    ///
    /// # Errors
    /// The first mistake, with its field and line.
    pub fn parse(text: &[u8]) -> Result<Self, RelayMapError> {
        let fail = |line, problem| RelayMapError { field: FieldPath::default(), line, problem };
        if text.len() > limits::RELAY_MAP_MAX {
            return Err(fail(None, Problem::TooLong(text.len())));
        }
        let root = json::read(text).map_err(|(line, problem)| fail(Some(line), problem))?;
        let map = read_map(&Place { path: FieldPath::default(), node: &root })?;
        validate::check(&map).map_err(|(field, problem)| {
            let problem = place_other(problem, &map, &root);
            RelayMapError { line: Some(line_of(&root, &field)), field, problem }
        })?;
        Ok(map)
    }

    /// The line on which a field of a document stands, or of what it should be in; none if the document is no
    /// JSON. For mistakes that show only beside another map.
    #[must_use]
    pub fn line_in(text: &[u8], field: &FieldPath) -> Option<usize> {
        json::read(text).ok().map(|root| line_of(&root, field))
    }
}

/// The line of a field, or of what it should be in.
fn line_of(root: &Node<'_>, path: &FieldPath) -> usize {
    let mut node = root;
    for segment in &path.0 {
        let below = match (segment, &node.value) {
            (Segment::Key(key), Value::Object(fields)) => find(fields, key),
            (Segment::Index(index), Value::Array(items)) => items.get(*index),
            _ => None,
        };
        match below {
            Some(below) => node = below,
            None => break,
        }
    }
    node.line
}

/// Adds the line of the region that took a name first.
fn place_other(problem: Problem, map: &RelayMap, root: &Node<'_>) -> Problem {
    let Problem::Taken { value, other } = problem else { return problem };
    let owner = map
        .regions
        .values()
        .find(|region| region.code == value || region.nodes.iter().any(|node| node.name == value));
    let line = owner.map(|region| line_of(root, &validate::region_path(region.id.0)));
    let other = line.map_or_else(|| other.clone(), |line| format!("{other} (line {line})"));
    Problem::Taken { value, other }
}

/// A value and where it stands.
struct Place<'n, 'a> {
    path: FieldPath,
    node: &'n Node<'a>,
}

impl<'n, 'a> Place<'n, 'a> {
    fn fail<T>(&self, problem: Problem) -> Result<T, RelayMapError> {
        Err(RelayMapError { field: self.path.clone(), line: Some(self.node.line), problem })
    }

    fn wrong<T>(&self, expected: &'static str) -> Result<T, RelayMapError> {
        self.fail(Problem::Type { expected, found: self.node.value.name() })
    }

    fn object(&self) -> Result<&'n [(String, Node<'a>)], RelayMapError> {
        match &self.node.value {
            Value::Object(fields) => Ok(fields),
            _ => self.wrong("an object"),
        }
    }

    /// The field of this name, if it is there and not null.
    fn field(&self, name: &str) -> Result<Option<Self>, RelayMapError> {
        let found = find(self.object()?, name).filter(|node| !matches!(node.value, Value::Null));
        Ok(found.map(|node| Self { path: self.path.key(name), node }))
    }

    fn text(&self, name: &str) -> Result<String, RelayMapError> {
        let Some(place) = self.field(name)? else { return Ok(String::new()) };
        match &place.node.value {
            Value::String(text) => Ok(text.clone()),
            _ => place.wrong("a text"),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, RelayMapError> {
        let Some(place) = self.field(name)? else { return Ok(false) };
        match &place.node.value {
            Value::Bool(flag) => Ok(*flag),
            _ => place.wrong("true or false"),
        }
    }

    fn integer(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, RelayMapError> {
        let Some(place) = self.field(name)? else { return Ok(None) };
        let Value::Number(text) = place.node.value else { return place.wrong("a whole number") };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            Err(_) if text.contains(['.', 'e', 'E']) => {
                place.fail(Problem::Type { expected: "a whole number", found: "a fraction" })
            }
            _ => place.fail(Problem::Range { min, max, found: quoted(text) }),
        }
    }

    fn number(&self, name: &str) -> Result<Option<Millionths>, RelayMapError> {
        self.field(name)?.map(|place| place.own_number()).transpose()
    }

    fn own_number(&self) -> Result<Millionths, RelayMapError> {
        match self.node.value {
            Value::Number(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Millionths::nearest(number)),
                _ => self.wrong("a number that fits"),
            },
            _ => self.wrong("a number"),
        }
    }

    /// The elements of a list.
    fn list(&self, name: &str) -> Result<Vec<Self>, RelayMapError> {
        let Some(place) = self.field(name)? else { return Ok(Vec::new()) };
        let Value::Array(items) = &place.node.value else { return place.wrong("a list") };
        Ok(items.iter().enumerate().map(|(i, node)| Self { path: place.path.index(i), node }).collect())
    }

    /// The fields of an object with region numbers for names.
    fn regions(&self, name: &str) -> Result<Vec<(RegionId, Self)>, RelayMapError> {
        let Some(place) = self.field(name)? else { return Ok(Vec::new()) };
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        let mut all = Vec::new();
        for (key, node) in place.object()? {
            let below = Self { path: place.path.key(&quoted(key)), node };
            let id = match key.parse() {
                Ok(id) if (1..=REGION_ID_MAX).contains(&id) => id,
                _ => return below.fail(Problem::RegionKey),
            };
            if let Some(line) = seen.insert(id, node.line) {
                let other = format!("the region before it (line {line})");
                return below.fail(Problem::Taken { value: key.clone(), other });
            }
            all.push((RegionId(id), below));
        }
        Ok(all)
    }
}

/// The last field of this name, as in Go and every other reader.
fn find<'n, 'a>(fields: &'n [(String, Node<'a>)], name: &str) -> Option<&'n Node<'a>> {
    fields.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, node)| node)
}

fn read_map(place: &Place<'_, '_>) -> Result<RelayMap, RelayMapError> {
    let mut map = RelayMap { omit_default_regions: place.flag("omitDefaultRegions")?, ..RelayMap::default() };
    if let Some(home) = place.field("HomeParams")? {
        let scores = home.regions("RegionScore")?;
        let scores = scores.into_iter().map(|(id, place)| Ok((id, place.own_number()?)));
        map.home_params = Some(HomeParams { region_score: scores.collect::<Result<_, RelayMapError>>()? });
    }
    for (id, place) in place.regions("Regions")? {
        map.regions.insert(id, read_region(id, &place)?);
    }
    Ok(map)
}

fn read_region(id: RegionId, place: &Place<'_, '_>) -> Result<RelayRegion, RelayMapError> {
    Ok(RelayRegion {
        id: read_id(id, place)?,
        code: place.text("RegionCode")?,
        name: place.text("RegionName")?,
        latitude: place.number("Latitude")?,
        longitude: place.number("Longitude")?,
        avoid: place.flag("Avoid")?,
        no_measure_no_home: place.flag("NoMeasureNoHome")?,
        nodes: place.list("Nodes")?.iter().map(|node| read_node(id, node)).collect::<Result<_, _>>()?,
    })
}

fn read_node(id: RegionId, place: &Place<'_, '_>) -> Result<RelayNode, RelayMapError> {
    Ok(RelayNode {
        name: place.text("Name")?,
        region: read_id(id, place)?,
        host: place.text("HostName")?,
        cert_name: place.text("CertName")?,
        ipv4_text: place.text("IPv4")?,
        ipv6_text: place.text("IPv6")?,
        stun_port_number: place.integer("STUNPort", -1, 65_535)?.unwrap_or(0) as i32,
        stun_only: place.flag("STUNOnly")?,
        derp_port_number: place.integer("DERPPort", 0, 65_535)?.unwrap_or(0) as u16,
        insecure_for_tests: place.flag("InsecureForTests")?,
        stun_test_ip: place.text("STUNTestIP")?,
        can_port_80: place.flag("CanPort80")?,
        force_http: place.flag("ForceHTTP")?,
    })
}

/// The region's number that an entry repeats; the key's if it does not.
fn read_id(key: RegionId, place: &Place<'_, '_>) -> Result<RegionId, RelayMapError> {
    let id = place.integer("RegionID", 0, REGION_ID_MAX as i64)?.unwrap_or(0) as u64;
    Ok(if id == 0 { key } else { RegionId(id) })
}
