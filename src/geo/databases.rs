//! GeoIP databases in MaxMind's format, whatever of these fields they have: MaxMind's own, and the flat records of the free ones.

use super::{Code, Point, Whereabouts};
use maxminddb::Reader;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;

/// An opened database.
pub struct Database(Reader<Vec<u8>>);

/// A file isn't a database.
#[derive(Debug, thiserror::Error)]
#[error("not a GeoIP database: {0}")]
pub struct DatabaseError(#[from] maxminddb::MaxMindDbError);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.kind())
    }
}

/// A record, of which each database has a part.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Named<'a>>,
    #[serde(borrow)]
    registered_country: Option<Named<'a>>,
    country_code: Option<&'a str>,
    #[serde(borrow)]
    continent: Option<Named<'a>>,
    continent_code: Option<&'a str>,
    autonomous_system_number: Option<u32>,
    location: Option<Place>,
    latitude: Option<Degrees>,
    longitude: Option<Degrees>,
}

/// A country or continent.
#[derive(Deserialize)]
struct Named<'a> {
    iso_code: Option<&'a str>,
    code: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn code(self) -> Option<&'a str> {
        self.iso_code.or(self.code)
    }
}

#[derive(Deserialize)]
struct Place {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

/// A number; some databases have it as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Degrees {
    Number(f64),
    Text(String),
}

impl Degrees {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl Database {
    /// From the bytes of its file.
    ///
    /// # Errors
    /// They are not such a file.
    pub fn new(bytes: Vec<u8>) -> Result<Self, DatabaseError> {
        Ok(Self(Reader::from_source(bytes)?))
    }

    /// What it calls itself: `GeoLite2-City`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.metadata().database_type
    }

    /// Where `addr` is; what can't be read of a record is unknown.
    #[must_use]
    pub fn find(&self, addr: IpAddr) -> Whereabouts {
        let found = self.0.lookup(addr).ok();
        found
            .and_then(|found| found.decode::<Record<'_>>().ok().flatten())
            .map(Whereabouts::from)
            .unwrap_or_default()
    }
}

impl From<Record<'_>> for Whereabouts {
    fn from(record: Record<'_>) -> Self {
        let country = record.country.and_then(Named::code).or(record.country_code);
        let country = country.or_else(|| record.registered_country.and_then(Named::code));
        let continent = record.continent.and_then(Named::code).or(record.continent_code);
        let nested = record.location.and_then(|place| Point::new(place.latitude?, place.longitude?));
        let flat = record.latitude.zip(record.longitude);
        let flat = flat.and_then(|(latitude, longitude)| Point::new(latitude.number()?, longitude.number()?));
        let parsed = |text: Option<&str>| text.and_then(|text| text.parse::<Code>().ok());
        Self {
            country: parsed(country),
            continent: parsed(continent),
            asn: record.autonomous_system_number,
            point: nested.or(flat),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_kinds() {
        let found = |json: &str| Whereabouts::from(serde_json::from_str::<Record<'_>>(json).unwrap());
        let nested = r#"{"country":{"iso_code":"DE"},"registered_country":{"iso_code":"US"},"continent":{"code":"EU"},
            "location":{"latitude":52.5,"longitude":13.4}}"#;
        let expected = Whereabouts {
            country: "DE".parse().ok(),
            continent: "EU".parse().ok(),
            asn: None,
            point: Point::new(52.5, 13.4),
        };
        assert_eq!(found(nested), expected);
        let flat = r#"{"country_code":"DE","continent_code":"EU","latitude":"52.5","longitude":13.4}"#;
        assert_eq!(found(flat), expected);
        let registered = found(r#"{"registered_country":{"iso_code":"US"}}"#);
        assert_eq!(registered.country, "US".parse().ok());
        assert_eq!(found(r#"{"autonomous_system_number":64500}"#).asn, Some(64_500));
        assert_eq!(found("{}"), Whereabouts::default());
    }

    #[test]
    fn what_is_no_database_is_refused() {
        assert!(Database::new(b"<html>not found</html>".to_vec()).is_err());
    }
}
