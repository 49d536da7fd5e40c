//! What the order of eviction is worth: hit ratios of the node's own against LRU, FIFO and the best there is, on a trace of
//! packages, images and one-pass scans; and what is left of the hot set after one scan.

use crate::caches::{Cache, Hit, Hits, InOrder, Own, belady, replay, upper_bound};
use crate::trace::Trace;

/// Sizes of caches, in percent of all that is asked for by popularity.
const PERCENT: [u64; 5] = [2, 5, 10, 20, 40];
/// Before counting.
const WARM_UP: usize = 300_000;
/// The most popular objects that are looked for after a scan.
const HOT: u32 = 5_000;

/// Seeded.
#[derive(Debug, clap::Args)]
pub struct Eviction {
    /// Another seed is another trace.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Make = fn(u64) -> Box<dyn Cache>;

const CACHES: [(&str, Make); 3] = [
    ("freshet", |bound| Box::new(Own::new(bound))),
    ("LRU", |bound| Box::new(InOrder::new(bound, Hits::Renew))),
    ("FIFO", |bound| Box::new(InOrder::new(bound, Hits::Leave))),
];

#[expect(clippy::cast_precision_loss, reason = "a report")]
pub fn run(line: &Eviction) {
    let trace = Trace::make(line.seed);
    let footprint = trace.footprint();
    let counted = &trace.requests[WARM_UP..];
    let asked =
        Hit { objects: counted.len() as u64, bytes: counted.iter().map(|object| trace.size(*object)).sum() };
    let scanned = counted.iter().filter(|object| **object >= trace.cold).count();
    println!(
        "{} requests counted, {scanned} of them one-pass scans; {} objects of {} GB are asked for by popularity",
        asked.objects,
        trace.cold,
        footprint / 1_000_000_000
    );
    println!("hit ratio in percent, objects / bytes\n");
    print!("{:>8} {:>8}", "cache", "GB");
    for name in CACHES.iter().map(|(name, _)| *name).chain(["Belady", "bound"]) {
        print!(" {name:>14}");
    }
    println!();
    for percent in PERCENT {
        let bound = footprint * percent / 100;
        print!("{percent:>7}% {:>8}", bound / 1_000_000_000);
        let hits = CACHES.iter().map(|(_, make)| replay(&trace, WARM_UP, &mut *make(bound)));
        for hit in hits.chain([belady(&trace, WARM_UP, bound), upper_bound(&trace, WARM_UP, bound)]) {
            let objects = hit.objects as f64 * 100.0 / asked.objects as f64;
            let bytes = hit.bytes as f64 * 100.0 / asked.bytes as f64;
            print!("  {objects:>5.1} / {bytes:>4.1}");
        }
        println!();
    }
    println!(
        "\nBelady knows the future (out goes who is needed last); for sizes that differ it isn't the best, but possible."
    );
    println!("bound is PFOO-L: no cache can hit more, and none may hit as much.\n");
    survival(&trace);
}

/// Of the hot set that a warm cache holds: what is left after one scan as large as the cache.
fn survival(trace: &Trace) {
    println!("left of the hot set ({HOT} most popular) after one scan of as many bytes as the cache has:");
    for percent in PERCENT {
        let bound = trace.footprint() * percent / 100;
        print!("{percent:>7}%");
        for (name, make) in CACHES {
            let mut cache = make(bound);
            trace.requests[..WARM_UP].iter().for_each(|object| {
                cache.fetch(*object, trace.size(*object));
            });
            let before: Vec<u32> = (0..HOT).filter(|object| cache.holds(*object)).collect();
            let mut bytes = 0;
            // Its objects come round again under other names, where they aren't enough.
            for number in 0_u32.. {
                if bytes > bound {
                    break;
                }
                let cold =
                    trace.cold + number % (u32::try_from(trace.sizes.len()).unwrap_or(u32::MAX) - trace.cold);
                let size = trace.size(cold);
                cache.fetch(u32::try_from(trace.sizes.len()).unwrap_or(0) + number, size);
                bytes += size;
            }
            let left = before.iter().filter(|object| cache.holds(**object)).count();
            print!("  {name} {:.1} % of {}", left as f64 * 100.0 / before.len().max(1) as f64, before.len());
        }
        println!();
    }
}
