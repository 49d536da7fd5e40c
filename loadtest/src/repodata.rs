//! What a push costs to read: a primary.xml of many packages in each compression, to a generation's catalogue.

use anyhow::{Context, ensure};
use freshet::clock::monotonic;
use freshet::config::Root;
use freshet::repo::{Catalogue, FileFacts, Kind, Sha256, compression, primary};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Reads it three times in each compression, each in a process of its own.
#[derive(Debug, clap::Args)]
pub struct Repodata {
    /// Packages, 1000 to 1000000.
    #[arg(long, default_value_t = 100_000)]
    packages: u32,
    /// The parts of one measurement; what the benchmark calls itself with.
    #[arg(long, hide = true)]
    read: Option<String>,
}

/// How `primary.xml` is compressed: a name, and the command that does it.
const COMPRESSIONS: [(&str, &[&str]); 4] =
    [("plain", &["cat"]), ("gz", &["gzip", "-c"]), ("xz", &["xz", "-c"]), ("zst", &["zstd", "-q", "-c"])];
/// Largest document, decompressed, that is read: as a node does.
const MOST_BYTES: u64 = 1 << 30;
const TIMES: usize = 3;

pub fn run(line: &Repodata) -> anyhow::Result<()> {
    if let Some(path) = &line.read {
        return read(path);
    }
    ensure!((1000..=1_000_000).contains(&line.packages), "--packages is 1000 to 1000000");
    let dir = tempfile::tempdir()?;
    let document = document(line.packages);
    println!("{} packages, {:.1} MB of primary.xml", line.packages, mega(document.len() as u64));
    println!("{:8} {:>9} {:>9} {:>12} {:>14}", "", "MB", "seconds", "peak MB more", "bytes per file");
    for (name, compressor) in COMPRESSIONS {
        let path = dir.path().join(name);
        compress(&document, compressor, &path)?;
        for _ in 0..TIMES {
            let this = std::env::current_exe()?;
            let read = Command::new(this).args(["repodata", "--read"]).arg(&path).output()?;
            ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
            let size = mega(fs::metadata(&path)?.len());
            println!("{name:8} {size:>9.1} {}", String::from_utf8_lossy(&read.stdout).trim_end());
        }
    }
    Ok(())
}

/// One measurement: seconds, and how far the peak of memory rose.
fn read(path: &str) -> anyhow::Result<()> {
    let bytes = fs::read(path)?;
    let (before, begun) = (peak_bytes()?, monotonic());
    let plain = compression::decompress(&bytes[..], MOST_BYTES)?;
    let mut files = Vec::new();
    let parsed = primary::parse(plain, &Root::default(), |file| {
        files.push((file.path, FileFacts { size: file.size, digest: file.digest, kind: Kind::Package }));
    })?;
    let (catalogue, left_out) = Catalogue::build(files, None, 1);
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(parsed.left_out + left_out == 0, "{parsed:?} {left_out}");
    let each = catalogue.memory_bytes() / catalogue.len();
    println!("{seconds:>9.2} {:>12.1} {each:>14}", mega(peak_bytes()? - before));
    Ok(())
}

/// As createrepo_c writes it, of packages with descriptions, provides and requires as Fedora's have: 2 KB each.
fn document(packages: u32) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
         xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"{packages}\">\n"
    );
    for number in 0..packages {
        let sha256 = Sha256::of(&number.to_le_bytes());
        let name = format!("package-with-a-name-{number}");
        let _ = write!(
            xml,
            "<package type=\"rpm\">\n  <name>{name}</name>\n  <arch>x86_64</arch>\n  <version epoch=\"0\" ver=\"1.2.{number}\" \
             rel=\"3.el9\"/>\n  <checksum type=\"sha256\" pkgid=\"YES\">{sha256}</checksum>\n  <summary>Summary of {name}</summary>\n  \
             <description>{}</description>\n  <packager>Builder</packager>\n  <url>https://example.org/{name}</url>\n  \
             <time file=\"1700000000\" build=\"1690000000\"/>\n  <size package=\"{}\" installed=\"123456\" archive=\"124000\"/>\n  \
             <location href=\"Packages/p/{name}-1.2.{number}-3.el9.x86_64.rpm\"/>\n  <format>\n    <rpm:license>MIT</rpm:license>\n    \
             <rpm:header-range start=\"4504\" end=\"20000\"/>\n    <rpm:provides>\n",
            "What it does, in some words that nobody reads here. ".repeat(8),
            1000 + number,
        );
        for entry in 0..6 {
            let _ = writeln!(
                xml,
                "      <rpm:entry name=\"lib{name}-{entry}.so()(64bit)\" flags=\"EQ\" epoch=\"0\" ver=\"1.2.{number}\" rel=\"3.el9\"/>"
            );
        }
        xml.push_str("    </rpm:provides>\n    <rpm:requires>\n");
        for entry in 0..8 {
            let _ = writeln!(xml, "      <rpm:entry name=\"libc.so.6(GLIBC_2.{entry})(64bit)\"/>");
        }
        let _ =
            write!(xml, "    </rpm:requires>\n    <file>/usr/bin/{name}</file>\n  </format>\n</package>\n");
    }
    xml.push_str("</metadata>\n");
    xml
}

fn compress(document: &str, compressor: &[&str], path: &std::path::Path) -> anyhow::Result<()> {
    let mut command = Command::new(compressor[0]);
    command.args(&compressor[1..]).stdin(Stdio::piped()).stdout(fs::File::create(path)?);
    let mut running = command.spawn().with_context(|| format!("running {}", compressor[0]))?;
    running.stdin.take().context("a pipe")?.write_all(document.as_bytes())?;
    ensure!(running.wait()?.success(), "{} failed", compressor[0]);
    Ok(())
}

/// The most memory that this process has had so far.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "a report")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
