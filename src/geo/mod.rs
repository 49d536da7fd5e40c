//! Where an address is: what the operator says of its network, and what GeoIP databases say of it.
//!
//! Pure: databases come as bytes.

mod continents;
mod databases;
mod networks;

pub use databases::{Database, DatabaseError};
pub use networks::{Network, Networks};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Two capital letters: a country as ISO 3166 has it, or a continent as GeoIP databases do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code([u8; 2]);

/// A text is no [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected two letters")]
pub struct NotACode;

impl Code {
    /// The letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The continent that a country lies on; that of its larger part, where there are two.
    #[must_use]
    pub fn continent(self) -> Option<Self> {
        continents::of(self)
    }
}

impl FromStr for Code {
    type Err = NotACode;

    /// Small letters are taken for capitals.
    fn from_str(text: &str) -> Result<Self, NotACode> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| NotACode)?;
        if letters.iter().all(u8::is_ascii_alphabetic) {
            Ok(Self(letters.map(|letter| letter.to_ascii_uppercase())))
        } else {
            Err(NotACode)
        }
    }
}

impl TryFrom<String> for Code {
    type Error = NotACode;

    fn try_from(text: String) -> Result<Self, NotACode> {
        text.parse()
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.as_str().to_owned()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A point on the earth, in hundredths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    latitude: i16,
    longitude: i16,
}

impl Point {
    /// From degrees, north and east; `None` outside of 90 and 180.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let hundredths = |degrees: f64, most: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "at most 18,000")]
            (degrees.abs() <= most).then(|| (degrees * 100.0).round() as i16)
        };
        Some(Self { latitude: hundredths(latitude, 90.0)?, longitude: hundredths(longitude, 180.0)? })
    }

    /// Along the surface (haversine, on a sphere of 6371 km).
    #[must_use]
    pub fn kilometres_to(self, other: Self) -> f64 {
        let radians = |hundredths: i16| (f64::from(hundredths) / 100.0).to_radians();
        let (a, b) = (radians(self.latitude), radians(other.latitude));
        let across = radians(other.longitude) - radians(self.longitude);
        let chord = ((b - a) / 2.0).sin().powi(2) + a.cos() * b.cos() * (across / 2.0).sin().powi(2);
        2.0 * 6371.0 * chord.sqrt().min(1.0).asin()
    }
}

impl FromStr for Point {
    type Err = ();

    /// `52.52, 13.4`: degrees north and east.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (latitude, longitude) = text.split_once(',').ok_or(())?;
        let degrees = |text: &str| text.trim().parse::<f64>().map_err(|_| ());
        Self::new(degrees(latitude)?, degrees(longitude)?).ok_or(())
    }
}

/// Where an address is, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Whereabouts {
    /// Its country.
    pub country: Option<Code>,
    /// Its continent.
    pub continent: Option<Code>,
    /// The number of the autonomous system that announces it.
    pub asn: Option<u32>,
    /// Its place.
    pub point: Option<Point>,
}

impl Whereabouts {
    /// These, and of `others` what these don't say.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            country: self.country.or(others.country),
            continent: self.continent.or(others.continent),
            asn: self.asn.or(others.asn),
            point: self.point.or(others.point),
        }
    }

    /// With the continent that follows from the country.
    fn completed(self) -> Self {
        Self { continent: self.continent.or_else(|| self.country.and_then(Code::continent)), ..self }
    }
}

/// All that is known of addresses.
#[derive(Debug, Default)]
pub struct Geo {
    networks: Networks,
    databases: Vec<Database>,
}

impl Geo {
    /// What the operator says comes before what databases say, and the first database before the next.
    #[must_use]
    pub fn new(networks: Networks, databases: Vec<Database>) -> Self {
        Self { networks, databases }
    }

    /// Where `addr` is. Takes a microsecond or two with a database: asked once for each connection.
    #[must_use]
    pub fn find(&self, addr: IpAddr) -> Whereabouts {
        let addr = addr.to_canonical();
        let said = self.networks.find(addr).completed();
        let found = |known: Whereabouts, database: &Database| known.or(database.find(addr));
        self.databases.iter().fold(said, found).completed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_two_letters() {
        assert_eq!("de".parse::<Code>().unwrap().as_str(), "DE");
        for text in ["", "D", "DEU", "D1", "\u{e9}"] {
            assert_eq!(text.parse::<Code>(), Err(NotACode), "{text}");
        }
    }

    #[test]
    fn distances() {
        let point = |text: &str| text.parse::<Point>().unwrap();
        let (berlin, paris, sydney) = (point("52.52, 13.40"), point("48.86,2.35"), point("-33.87, 151.21"));
        assert!((berlin.kilometres_to(paris) - 878.0).abs() < 5.0);
        assert!((berlin.kilometres_to(sydney) - 16_090.0).abs() < 50.0);
        assert!(berlin.kilometres_to(berlin) < 1e-9);
        let antipodes = point("-52.52, -166.60");
        assert!((berlin.kilometres_to(antipodes) - 20_015.0).abs() < 10.0);
        for text in ["", "1", "1,", "91,0", "0,181", "a,b", "NaN,0"] {
            assert_eq!(text.parse::<Point>(), Err(()), "{text}");
        }
    }

    #[test]
    fn what_the_operator_says_comes_first() {
        let said = Network {
            addresses: "192.0.2.0/24".parse().unwrap(),
            whereabouts: Whereabouts { country: "de".parse().ok(), ..Whereabouts::default() },
        };
        let geo = Geo::new(Networks::new([said]), Vec::new());
        let found = geo.find("::ffff:192.0.2.9".parse().unwrap());
        assert_eq!((found.country, found.continent), ("DE".parse().ok(), "EU".parse().ok()));
        assert_eq!(geo.find("198.51.100.1".parse().unwrap()), Whereabouts::default());
    }
}
