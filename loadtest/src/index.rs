//! A start of the store over many objects: how long until the first answer, how long until the whole index is loaded, what
//! the slowest answer meanwhile takes, and what the index takes in memory.
//!
//! A thousand entries are real: stored through the store from an origin on loopback. The others are copies of one of them
//! under other names: for the index they are objects like any other; looked at, they wouldn't verify.

use anyhow::{Context, ensure};
use freshet::clock::monotonic;
use freshet::http::TreePath;
use freshet::origin::{HttpOrigin, Origin, http};
use freshet::store::measure::FullIndex;
use freshet::store::{Object, Settings, Store};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Entries that answer.
const REAL: u32 = 1000;
const BODY_BYTES: usize = 2000;
/// The origin's name is a part of its objects' names, and has to be the same in the next run.
const PORT: u16 = 47_113;
const BOUND: u64 = 1 << 40;
/// Between two looks while the index loads.
const LOOK: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_secs(600);

/// Makes the objects first, unless an earlier run did.
#[derive(Debug, clap::Args)]
pub struct Index {
    /// Where the objects lie; some gigabytes.
    #[arg(long, default_value = "target/index")]
    dir: PathBuf,
    /// How many.
    #[arg(long, default_value_t = 1_000_000)]
    objects: u32,
}

#[expect(clippy::cast_precision_loss, reason = "a report")]
pub fn run(line: &Index) -> anyhow::Result<()> {
    ensure!((REAL..=10_000_000).contains(&line.objects), "--objects is {REAL} to 10000000");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let disk = line.dir.join(line.objects.to_string());
    make(&disk, line.objects, &runtime)?;

    let (before, begun) = (rss_bytes()?, monotonic());
    let store = open(&disk, &runtime)?;
    let opened = begun.elapsed();
    let answer = |number| runtime.block_on(store.find(&object(number)?)).context("a real entry isn't found");
    answer(0)?;
    println!("open          {:>12.1} ms", opened.as_secs_f64() * 1e3);
    println!("first answer  {:>12.1} ms after the start", begun.elapsed().as_secs_f64() * 1e3);
    let (mut slowest, mut answers) = (Duration::ZERO, 0);
    while store.stats().objects < u64::from(line.objects) {
        ensure!(begun.elapsed() < LONGEST, "{} objects are indexed only", store.stats().objects);
        let asked = monotonic();
        answers += 1;
        answer(answers % REAL)?;
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(LOOK);
    }
    println!("whole index   {:>12.2} s  after the start", begun.elapsed().as_secs_f64());
    println!("meanwhile     {answers:>12} answers, the slowest in {:.1} ms", slowest.as_secs_f64() * 1e3);
    let objects = f64::from(line.objects);
    let grown = rss_bytes()?.saturating_sub(before);
    println!("memory        {:>12.0} bytes an object by RSS, loaded", grown as f64 / objects);
    println!("              {:>12.0} by counting", store.index_bytes() as f64 / objects);
    drop(store);

    let file = Arc::new(File::open("/dev/null")?);
    let before = rss_bytes()?;
    let full = FullIndex::of(line.objects, &file);
    let grown = rss_bytes()?.saturating_sub(before);
    println!(
        "at its worst  {:>12.0} bytes an object by RSS: each asked for and opened, as many ghosts",
        grown as f64 / objects
    );
    println!(
        "              {:>12.0} by counting, with {} on each",
        full.memory_bytes() as f64 / objects + 80.0,
        80
    );
    ensure!(full.objects() == line.objects as usize, "{} objects", full.objects());
    Ok(())
}

fn open(disk: &Path, runtime: &Runtime) -> anyhow::Result<Arc<Store>> {
    let origin = HttpOrigin::new(http::Settings::new(&format!("http://127.0.0.1:{PORT}/"), "loadtest"))?;
    let settings = Settings::new(disk.to_owned(), BOUND);
    Ok(Store::open(Origin::Http(Arc::new(origin)), &settings, runtime.handle())?)
}

fn object(number: u32) -> anyhow::Result<Object> {
    Ok(Object::unlisted(TreePath::new(&format!("Packages/{number}.rpm"))?))
}

/// Makes the entries, unless they are there.
fn make(disk: &Path, objects: u32, runtime: &Runtime) -> anyhow::Result<()> {
    let done = disk.join("made");
    if done.exists() {
        println!("objects       {objects:>12} in {}, from an earlier run", disk.display());
        return Ok(());
    }
    let begun = monotonic();
    fs::create_dir_all(disk)?;
    let listener = TcpListener::bind(("127.0.0.1", PORT)).with_context(|| format!("port {PORT}"))?;
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).try_for_each(serve));
    let store = open(disk, runtime)?;
    for number in 0..REAL {
        runtime.block_on(store.complete(&object(number)?))?;
    }
    runtime.block_on(store.shutdown());
    drop(store);
    let template = fs::read(first_file(&disk.join("objects"))?)?;
    let entries = count(&disk.join("objects"))?;
    // What an interrupted run left is counted, and gets the same names again.
    for number in 0..objects.saturating_sub(u32::try_from(entries)?.min(REAL)) {
        let name = name(number);
        let shard = disk.join("objects").join(&name[..2]);
        let mut file = match File::create(shard.join(&name[2..])) {
            Ok(file) => file,
            Err(_) => {
                fs::create_dir_all(&shard)?;
                File::create(shard.join(&name[2..]))?
            }
        };
        file.write_all(&template)?;
    }
    ensure!(
        count(&disk.join("objects"))? == objects as usize,
        "another run left other objects: remove {}",
        disk.display()
    );
    File::create(done)?;
    println!(
        "objects       {objects:>12} made in {}, in {:.0} s",
        disk.display(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// 64 hex digits, another for each number.
fn name(number: u32) -> String {
    freshet::repo::Sha256::of(&number.to_le_bytes()).hex()
}

fn first_file(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = fs::read_dir(dir)?.next().context("no entry")??.path();
    if path.is_dir() { first_file(&path) } else { Ok(path) }
}

fn count(dir: &Path) -> anyhow::Result<usize> {
    let mut files = 0;
    for shard in fs::read_dir(dir)? {
        files += fs::read_dir(shard?.path())?.count();
    }
    Ok(files)
}

/// The same to everybody, one request a connection.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
            _ => return Ok(()),
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {BODY_BYTES}\r\ncache-control: max-age=31536000\r\n\r\n"
    );
    // A client that left is no reason to stop.
    let _ = stream.write_all(&[answer.as_bytes(), &[7; BODY_BYTES]].concat());
    Ok(())
}

/// What this process has in memory (proc_pid_statm(5)).
fn rss_bytes() -> anyhow::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}
