//! Realistic corpora with a fixed seed, for all benches: the same bytes on every machine and in every run.
//!
//! `flat`: log events of about 200 bytes, top-level keys only, ASCII. `nested`: orders of about 1.1 KB with lists
//! of objects, escapes and UTF-8. Used with `mod corpus;`.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::Write;

/// The generator SplitMix64: small, and its sequence is fixed by its definition.
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of `all`.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

const SEED: u64 = 2026;

const LEVELS: [&str; 8] = ["debug", "info", "info", "info", "info", "info", "warn", "error"];
const HOSTS: [&str; 5] = ["web-1", "web-2", "api-1", "api-2", "worker-17"];
const PATHS: [&str; 6] =
    ["/", "/api/v1/orders", "/api/v1/orders/search", "/login", "/static/app.js", "/health"];
const METHODS: [&str; 4] = ["GET", "GET", "POST", "DELETE"];
const NAMES: [&str; 6] =
    ["Anna Lindqvist", "Jürgen Groß", "Zoë Müller", "山田太郎", "Oľga Kováčová", "Bob \\\"B\\\" Smith"];
const NOTES: [&str; 5] = [
    "leave at the door",
    "ring twice\\nthen wait \\u2014 the bell is slow",
    "gift: \\\"für Mama\\\" 🎁",
    "C:\\\\orders\\\\2026\\\\11",
    "доставить до 18:00, позвонить заранее",
];
const ITEMS: [&str; 5] = ["kettle", "desk lamp", "Blumentopf groß", "usb-c cable 2 m", "notebook \\\"A5\\\""];

/// Flat events of about 200 bytes, one a line, at least `bytes` in all.
pub fn flat(bytes: usize) -> Vec<u8> {
    lines(bytes, |random, id, out| {
        write!(
            out,
            concat!(
                r#"{{"ts":"2026-11-{:02}T{:02}:{:02}:{:02}.{:03}Z","level":"{}","host":"{}","method":"{}","#,
                r#""path":"{}","status":{},"ms":{}.{:03},"bytes":{},"user":{},"trace":"{:016x}","ok":{},"id":{}}}"#
            ),
            1 + random.below(28),
            random.below(24),
            random.below(60),
            random.below(60),
            random.below(1000),
            random.pick(&LEVELS),
            random.pick(&HOSTS),
            random.pick(&METHODS),
            random.pick(&PATHS),
            random.pick(&[200, 200, 200, 201, 304, 404, 500, 503]),
            random.below(900),
            random.below(1000),
            random.below(100_000),
            random.below(1_000_000),
            random.next(),
            random.pick(&["true", "false", "null"]),
            id,
        )
    })
}

/// Nested events of about 1.1 KB with escapes and UTF-8, one a line, at least `bytes` in all.
pub fn nested(bytes: usize) -> Vec<u8> {
    lines(bytes, |random, id, out| {
        write!(
            out,
            concat!(
                r#"{{"id":"ord-{:08}","customer":{{"id":{},"name":"{}","email":"user{}@example.com","#,
                r#""address":{{"street":"Lindenstraße {}","city":"Köln","zip":"{:05}","geo":[{}.{:05},{}.{:05}]}}}},"#,
                r#""items":["#
            ),
            id,
            random.below(1_000_000),
            random.pick(&NAMES),
            random.below(100_000),
            1 + random.below(200),
            random.below(100_000),
            random.below(90),
            random.below(100_000),
            random.below(180),
            random.below(100_000),
        )?;
        for index in 0..3 + random.below(4) {
            write!(
                out,
                concat!(
                    r#"{}{{"sku":"SKU-{:06}","title":"{}","qty":{},"price":{{"amount":"{}.{:02}","currency":"EUR"}},"#,
                    r#""tags":["{}","new"],"options":{{"colour":"{}","gift":{}}}}}"#
                ),
                if index == 0 { "" } else { "," },
                random.below(1_000_000),
                random.pick(&ITEMS),
                1 + random.below(9),
                random.below(300),
                random.below(100),
                random.pick(&["home", "sale", "été"]),
                random.pick(&["red", "blue", "grün"]),
                random.pick(&["true", "false", "null"]),
            )?;
        }
        write!(
            out,
            concat!(
                r#"],"note":"{}","history":[{{"at":{},"state":"created"}},{{"at":{},"state":"{}"}}],"#,
                r#""total":{}.{:02},"score":{}e-{},"flags":{{}},"empty":[]}}"#
            ),
            random.pick(&NOTES),
            1_790_000_000_000 + random.below(1_000_000_000),
            1_791_000_000_000 + random.below(1_000_000_000),
            random.pick(&["paid", "shipped", "returned"]),
            random.below(2000),
            random.below(100),
            random.below(1000),
            random.below(9),
        )
    })
}

/// Lines made by `line`, which is given their number, until there are `bytes` of them.
fn lines(bytes: usize, line: impl Fn(&mut Random, u64, &mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let (mut random, mut out) = (Random::new(SEED), Vec::with_capacity(bytes + 4096));
    let mut id = 0;
    while out.len() < bytes {
        line(&mut random, id, &mut out).expect("a vector takes every write");
        out.push(b'\n');
        id += 1;
    }
    out
}
