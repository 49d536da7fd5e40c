//! librepo itself, driven by the system's Python module for it: with as many transfers at a time as dnf5 may be configured to have.

use super::said;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Downloads packages, each held against its SHA-256, and prints how many; fails with what librepo says of each that failed.
const SCRIPT: &str = r#"
import json, sys, time, librepo
given = json.load(open(sys.argv[1]))
left = [10]
def ended(*_):
    left[0] -= 1
    if left[0] == 0:
        time.sleep(given["pause"])
handle = librepo.Handle()
handle.setopt(librepo.LRO_REPOTYPE, librepo.LR_YUMREPO)
handle.setopt(librepo.LRO_URLS, [given["url"]])
if given["ca"]:
    handle.setopt(librepo.LRO_SSLCACERT, given["ca"])
handle.setopt(librepo.LRO_USERAGENT, given["agent"])
handle.setopt(librepo.LRO_MAXPARALLELDOWNLOADS, given["parallel"])
handle.setopt(librepo.LRO_MAXDOWNLOADSPERMIRROR, given["parallel"])
handle.setopt(librepo.LRO_LOWSPEEDTIME, given["patience"])
targets = [
    librepo.PackageTarget(path, dest=given["dest"], checksum_type=librepo.SHA256, checksum=sha256, expectedsize=size, handle=handle, endcb=ended)
    for path, sha256, size in given["packages"]
]
try:
    librepo.download_packages(targets, failfast=True)
except librepo.LibrepoException as error:
    sys.exit(f"{error}: {[(target.relative_url, target.err) for target in targets if target.err]}")
failed = [(target.relative_url, target.err) for target in targets if target.err]
if failed:
    sys.exit(str(failed))
print(len(targets))
"#;

/// One client host.
pub struct Librepo {
    dir: TempDir,
    url: String,
    agent: String,
    parallel: u32,
    /// Seconds below 1000 B/s that it bears.
    patience: u32,
    /// Seconds that it is busy once it has ten packages.
    pause: u32,
    /// The authorities that it trusts, in a file; the system's where none is given.
    ca: Option<PathBuf>,
}

impl Librepo {
    /// It downloads from the one URL, `parallel` files at a time.
    pub fn new(url: &str, agent: &str, parallel: u32) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        Self { dir, url: url.to_owned(), agent: agent.to_owned(), parallel, patience: 30, pause: 0, ca: None }
    }

    /// The same with a mirror given up after so many seconds in which it sends nothing.
    pub fn patient_for(self, patience: u32) -> Self {
        Self { patience, ..self }
    }

    /// The same; once it has ten packages, it does something else for so many seconds.
    pub fn pausing_for(self, pause: u32) -> Self {
        Self { pause, ..self }
    }

    /// The same with authorities of its own.
    pub fn trusting(self, ca: &Path) -> Self {
        Self { ca: Some(ca.to_owned()), ..self }
    }

    /// Downloads the packages, given by their paths in the copy of the repository at `repo`. Panics unless all of them come whole.
    #[track_caller]
    pub fn download(&self, repo: &Path, packages: &[String]) {
        use aws_lc_rs::digest::{SHA256, digest};
        let facts = |path: &String| {
            let body = fs::read(repo.join(path)).expect("a package");
            let sha256 = data_encoding::HEXLOWER.encode(digest(&SHA256, &body).as_ref());
            serde_json::json!([path, sha256, body.len()])
        };
        let given = serde_json::json!({
            "url": self.url,
            "agent": self.agent,
            "parallel": self.parallel,
            "patience": self.patience,
            "pause": self.pause,
            "ca": self.ca,
            "dest": self.path("got"),
            "packages": packages.iter().map(facts).collect::<Vec<_>>(),
        });
        fs::create_dir_all(self.path("got")).expect("a directory");
        fs::write(self.path("given.json"), given.to_string()).expect("a file");
        let mut python = Command::new("/usr/bin/python3");
        python.env_remove("http_proxy").args(["-c", SCRIPT]).arg(self.path("given.json"));
        let output = python.output().expect("python3-librepo is installed");
        let text = said(&output);
        assert!(output.status.success(), "{} at a time: {}: {text}", self.parallel, output.status);
        assert_eq!(text.trim(), packages.len().to_string());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
