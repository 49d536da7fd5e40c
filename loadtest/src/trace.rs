//! A trace as a distribution's node sees it: many packages and a few images by popularity, and now and then somebody who
//! walks through a cold tree once. Seeded: the same everywhere.

/// Objects that clients ask for by popularity.
const OBJECTS: usize = 200_000;
/// Of these, images of gigabytes.
const IMAGES: usize = 60;
/// Requests by popularity.
const REQUESTS: usize = 1_500_000;
/// How uneven popularity is (Zipf's exponent).
const SKEW: f64 = 0.9;
/// One-pass scans, evenly spread over the trace, and the objects of each. No scan meets another's.
const SCANS: usize = 10;
const SCANNED: usize = 30_000;
/// During a scan every other request is the scan's.
const SCAN_PACE: usize = 2;

/// Requests in order, each the number of an object.
pub struct Trace {
    pub requests: Vec<u32>,
    /// By object.
    pub sizes: Vec<u64>,
    /// The first of those that only scans touch.
    pub cold: u32,
}

impl Trace {
    pub fn make(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut sizes: Vec<u64> = (0..OBJECTS).map(|_| package_bytes(&mut random)).collect();
        for _ in 0..IMAGES {
            // Any popularity, but the very first.
            let at = 20 + random.below(OBJECTS - 20);
            sizes[at] = 700_000_000 + random.below(9_300_000_000) as u64;
        }
        let cold = u32::try_from(sizes.len()).expect("some hundred thousand");
        sizes.extend((0..SCANS * SCANNED).map(|_| package_bytes(&mut random)));
        let popular = Zipf::new(OBJECTS, SKEW);
        let mut requests = Vec::with_capacity(REQUESTS + SCANS * SCANNED);
        let (apart, mut scanned) = (REQUESTS / SCANS, cold);
        for number in 0..REQUESTS {
            requests.push(popular.draw(&mut random));
            let within = number % apart;
            if within >= apart / 2 && within < apart / 2 + SCANNED * (SCAN_PACE - 1) {
                requests.push(scanned);
                scanned += 1;
            }
        }
        Self { requests, sizes, cold }
    }

    /// Bytes of all objects that are asked for by popularity.
    pub fn footprint(&self) -> u64 {
        self.sizes[..self.cold as usize].iter().sum()
    }

    pub fn size(&self, object: u32) -> u64 {
        self.sizes[object as usize]
    }
}

/// What a package takes: lognormal, half of them below 90 kB, from 14 kB to 100 MB.
fn package_bytes(random: &mut Random) -> u64 {
    let bytes = (90_000_f64.ln() + 1.7 * random.normal()).exp();
    bytes.clamp(14_000.0, 100_000_000.0) as u64
}

/// Objects by popularity: the `n`th is drawn in proportion to `1 / n^skew`.
struct Zipf {
    /// Sums of weights up to each.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(objects: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let weigh = |rank: usize| {
            sum += (rank as f64).powf(-skew);
            sum
        };
        Self { sums: (1..=objects).map(weigh).collect() }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let point = random.unit() * self.sums.last().copied().unwrap_or_default();
        u32::try_from(self.sums.partition_point(|sum| *sum < point)).unwrap_or(u32::MAX)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}
