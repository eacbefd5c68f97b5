//! Replays the committed corpora of all fuzz targets, and every crash that was ever found, by name.

use std::path::Path;

use testkit::fuzz::TARGETS;

#[test]
fn every_file_of_every_corpus_keeps_its_target_quiet() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(corpora.join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"))
            .map(|file| file.expect("a readable folder").path())
            .collect();
        files.sort();
        assert!(files.len() >= 10, "the corpus of {name} has {} files", files.len());
        for file in files {
            let data = std::fs::read(&file).expect("a readable file");
            if std::panic::catch_unwind(|| target(&data)).is_err() {
                panic!("{name} panics at {}", file.display());
            }
        }
    }
}

#[test]
fn bytes_without_meaning_keep_every_target_quiet() {
    // A short stream of pseudo-random bytes, the same at every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for round in 0..40 {
        let data: Vec<u8> = std::iter::repeat_with(&mut bytes).take(round * 2).flatten().collect();
        for (_, target) in TARGETS {
            target(&data);
        }
    }
}

#[test]
fn a_msgpack_packet_may_name_a_namespace_without_a_slash() {
    testkit::fuzz::sio_msgpack(b"\x84\xa2id\x03\xa4type\x03\xa4data\x91\xa2ok\xa3nsp\xa1o");
}

#[test]
fn a_volatile_broadcast_with_ack_that_nobody_gets_is_not_awaited() {
    // A polling socket without a waiting GET, and a volatile broadcast that asks for acks.
    let steps = [2, 0, 0, 3, 0, 4, 0, 0, 0, 2, 14, 0, 1, 20, 0, 27, 0, 0, 0, 1, 13, 3];
    testkit::fuzz::shard(&steps);
}
