//! The committed corpus of the fuzz target for other servers' messages: each file as it is, and as it is after a little
//! damage of every kind at every place.

mod promises;

use std::path::{Path, PathBuf};

use promises::adapter_message;

/// Bytes that mean something in msgpack or JSON: ends of numbers, lists and maps that promise much, quotes and braces.
const TELLING: [u8; 14] =
    [0x00, 0x01, 0x7f, 0x81, 0x91, 0xc1, 0xc7, 0xcb, 0xdb, 0xdd, 0xdf, 0xff, b'"', b'{'];

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/adapter_message");
    let files =
        std::fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a readable folder").path());
    let mut files: Vec<_> =
        files.map(|file| (file.clone(), std::fs::read(file).expect("a readable file"))).collect();
    files.sort();
    assert!(files.len() >= 20, "the corpus has {} files", files.len());
    files
}

fn check(file: &Path, what: &str, data: &[u8]) {
    if std::panic::catch_unwind(|| adapter_message(data)).is_err() {
        panic!("{} {what}: {data:02x?}", file.display());
    }
}

#[test]
fn every_file_of_the_corpus_keeps_what_is_promised() {
    for (file, data) in corpus() {
        check(&file, "as it is", &data);
    }
}

#[test]
fn damage_is_read_or_refused() {
    for (file, data) in corpus() {
        for at in 0..data.len() {
            check(&file, "cut", &data[..at]);
            check(&file, "with a byte missing", &[&data[..at], &data[at + 1..]].concat());
            check(&file, "with a part twice", &[&data[..], &data[at..]].concat());
            for with in TELLING {
                let mut changed = data.clone();
                changed[at] = with;
                check(&file, "with another byte", &changed);
                changed.insert(at, data[at]);
                check(&file, "with one more byte", &changed);
            }
            for bit in 0..8 {
                let mut changed = data.clone();
                changed[at] ^= 1 << bit;
                check(&file, "with another bit", &changed);
            }
        }
    }
}
