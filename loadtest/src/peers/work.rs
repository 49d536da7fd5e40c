//! What is measured: one work for each row of the table, and how good a figure has to be. Pure.

use super::site::Files;
use serde::Serialize;

/// How a work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Closed loop: what a CPU-second of the server does.
    Throughput,
    /// Open loop, while cold files stream beside it: how long the slow ones take.
    BesideCold,
    /// Memory of idle connections.
    Idle,
}

/// What a work's figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Gbit of bodies for each CPU-second of the server.
    #[serde(rename = "Gbit per CPU-second")]
    Gigabits,
    /// Thousand requests for each CPU-second of the server.
    #[serde(rename = "thousand requests per CPU-second")]
    Requests,
    /// Microseconds; less is better.
    #[serde(rename = "p99 in microseconds")]
    Micros,
    /// KiB for each connection; less is better.
    #[serde(rename = "KiB per connection")]
    Kibibytes,
}

impl Unit {
    /// Less is better: ratios are turned round, so that above one is always better than the peer.
    pub const fn less_is_better(self) -> bool {
        matches!(self, Self::Micros | Self::Kibibytes)
    }

    /// In tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gigabits => "Gbit/CPU-s",
            Self::Requests => "k req/CPU-s",
            Self::Micros => "p99, us",
            Self::Kibibytes => "KiB/conn.",
        }
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Plain,
    Tls,
    Http2,
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    Freshet,
    Nginx,
    Varnish,
}

impl Name {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Freshet => "freshet",
            Self::Nginx => "nginx",
            Self::Varnish => "Varnish",
        }
    }
}

/// What a ratio to a peer has to be: its interval's lower end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    pub peer: Name,
    pub reach: f64,
    pub go_for: f64,
}

/// What a figure itself has to be, where no peer is the measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limit {
    pub reach: f64,
    pub go_for: f64,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// For `--only`.
    pub key: &'static str,
    pub title: &'static str,
    pub kind: Kind,
    pub files: Files,
    pub connections: usize,
    pub spoken: Spoken,
    pub status: u16,
    pub unit: Unit,
    /// Cores of the server. With two the load is on the same ones.
    pub cores: usize,
    /// A look whether measuring works takes this one in.
    pub quick: bool,
    pub goals: &'static [Goal],
    pub limit: Option<Limit>,
}

const fn nginx(reach: f64, go_for: f64) -> Goal {
    Goal { peer: Name::Nginx, reach, go_for }
}

/// "Ahead": anything above one.
const VARNISH: Goal = Goal { peer: Name::Varnish, reach: 1.00, go_for: 2.00 };

const PLAIN: Work = Work {
    key: "",
    title: "",
    kind: Kind::Throughput,
    files: Files::Large,
    connections: 32,
    spoken: Spoken::Plain,
    status: 200,
    unit: Unit::Gigabits,
    cores: 1,
    quick: false,
    goals: &[],
    limit: None,
};

/// All of them.
pub const WORKS: &[Work] = &[
    Work { key: "100mb", title: "100 MB files", goals: &[nginx(1.00, 1.10), VARNISH], ..PLAIN },
    Work {
        key: "1mb",
        title: "1 MB files",
        files: Files::Medium,
        quick: true,
        goals: &[nginx(1.00, 1.10), VARNISH],
        ..PLAIN
    },
    Work {
        key: "64k",
        title: "64 KiB files",
        files: Files::Small,
        goals: &[nginx(1.05, 1.15), VARNISH],
        ..PLAIN
    },
    Work {
        key: "4k",
        title: "4 KiB repomd.xml",
        files: Files::Repomd,
        unit: Unit::Requests,
        quick: true,
        goals: &[nginx(1.15, 1.25), VARNISH],
        ..PLAIN
    },
    Work {
        key: "302",
        title: "302 decisions",
        files: Files::Offloaded,
        // Each from a network of its own.
        connections: 256,
        status: 302,
        unit: Unit::Requests,
        quick: true,
        goals: &[nginx(0.85, 1.00), VARNISH],
        ..PLAIN
    },
    Work {
        key: "1mb-tls",
        title: "1 MB files, TLS 1.3, HTTP/1.1",
        files: Files::Medium,
        spoken: Spoken::Tls,
        goals: &[nginx(1.70, 2.00)],
        ..PLAIN
    },
    Work {
        key: "1mb-h2",
        title: "1 MB files, TLS 1.3, HTTP/2",
        files: Files::Medium,
        spoken: Spoken::Http2,
        quick: true,
        goals: &[nginx(1.70, 2.00)],
        ..PLAIN
    },
    Work {
        key: "4k-tls",
        title: "4 KiB repomd.xml, TLS 1.3, HTTP/1.1",
        files: Files::Repomd,
        spoken: Spoken::Tls,
        unit: Unit::Requests,
        quick: true,
        goals: &[nginx(1.15, 1.30)],
        ..PLAIN
    },
    Work {
        key: "4k-h2",
        title: "4 KiB repomd.xml, TLS 1.3, HTTP/2",
        files: Files::Repomd,
        spoken: Spoken::Http2,
        unit: Unit::Requests,
        goals: &[nginx(1.15, 1.30)],
        ..PLAIN
    },
    Work {
        key: "cold",
        title: "4 KiB repomd.xml while cold files stream",
        kind: Kind::BesideCold,
        files: Files::Repomd,
        unit: Unit::Micros,
        quick: true,
        goals: &[nginx(1.00, 2.00)],
        ..PLAIN
    },
    Work {
        key: "idle",
        title: "memory of an idle connection",
        kind: Kind::Idle,
        files: Files::Repomd,
        connections: 5000,
        unit: Unit::Kibibytes,
        quick: true,
        limit: Some(Limit { reach: 12.0, go_for: 4.0 }),
        ..PLAIN
    },
    Work {
        key: "idle-tls",
        title: "memory of an idle TLS connection",
        kind: Kind::Idle,
        files: Files::Repomd,
        connections: 5000,
        spoken: Spoken::Tls,
        unit: Unit::Kibibytes,
        limit: Some(Limit { reach: 40.0, go_for: 40.0 }),
        ..PLAIN
    },
    Work { key: "1mb-2", title: "1 MB files, two cores", files: Files::Medium, cores: 2, ..PLAIN },
    Work {
        key: "4k-2",
        title: "4 KiB repomd.xml, two cores",
        files: Files::Repomd,
        unit: Unit::Requests,
        cores: 2,
        ..PLAIN
    },
];

impl Work {
    /// Varnish does no TLS, and its cache knows no cold files.
    pub fn is_for(&self, name: Name) -> bool {
        name != Name::Varnish || (self.spoken == Spoken::Plain && self.kind != Kind::BesideCold)
    }
}

/// The works that `only` names, in the order of the table; all for none.
pub fn chosen(only: &[String], quick: bool) -> Result<Vec<Work>, String> {
    if let Some(unknown) = only.iter().find(|key| !WORKS.iter().any(|work| work.key == **key)) {
        let known: Vec<&str> = WORKS.iter().map(|work| work.key).collect();
        return Err(format!("no work {unknown:?}; there are {}", known.join(", ")));
    }
    let is_chosen = |work: &&Work| match only {
        [] => work.quick || !quick,
        _ => only.iter().any(|key| work.key == key),
    };
    Ok(WORKS.iter().filter(is_chosen).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_sound() {
        let keys: HashSet<&str> = WORKS.iter().map(|work| work.key).collect();
        assert_eq!(keys.len(), WORKS.len(), "a key names one work");
        for work in WORKS {
            assert!(
                work.goals.iter().all(|goal| goal.reach <= goal.go_for && work.is_for(goal.peer)),
                "{}",
                work.key
            );
            assert!((1..=2).contains(&work.cores) && work.connections > 0 && !work.title.is_empty());
            assert_eq!(work.status == 302, work.files == Files::Offloaded);
        }
    }

    #[test]
    fn works_are_chosen_by_key() {
        let keys = |only: &[&str], quick| {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            chosen(&only, quick).map(|works| works.iter().map(|work| work.key).collect::<Vec<_>>())
        };
        assert_eq!(keys(&["64k", "100mb"], false).unwrap(), ["100mb", "64k"]);
        assert_eq!(keys(&["64k"], true).unwrap(), ["64k"]);
        assert_eq!(keys(&[], false).unwrap().len(), WORKS.len());
        assert!(keys(&[], true).unwrap().len() < WORKS.len());
        assert!(keys(&["65k"], false).unwrap_err().contains("64k"));
    }
}
