//! permessage-deflate from the outside: the examples of RFC 7692 §7.2.3, round trips, damage and bombs.

use flate2::{Decompress, FlushDecompress};
use proptest::prelude::*;
use ws_proto::{
    Decoder, Deflater, Fault, Inflater, Message, OpCode, Rules, Step, deflate::WINDOW_BITS, encode_header,
    mask,
};

#[test]
fn examples_of_the_rfc_inflate_to_hello() {
    let mut inflater = Inflater::default();
    for payload in [
        // One block; no compression; a last block; two blocks.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflater.inflate(payload, 5), Ok(&b"Hello"[..]), "{payload:02x?}");
    }
    assert_eq!(inflater.inflate(&[0x00], 0), Ok(&b""[..]));
    assert_eq!(inflater.inflate(&[], 0), Ok(&b""[..]));
}

#[test]
fn damaged_streams_are_faults_and_do_not_spoil_the_next_message() {
    let mut inflater = Inflater::default();
    for payload in [
        // Reserved block type; stops inside a stored block; stops inside a compressed one; streams without end.
        &[0xff][..],
        &[0x00, 0x09, 0x00, 0xf6, 0xff, 0x48],
        &[0xf2, 0x48, 0xcd],
        &[0x03, 0x00, 0x03, 0x00, 0x03, 0x00, 0x00],
    ] {
        assert_eq!(inflater.inflate(payload, 1000), Err(Fault::BadDeflate), "{payload:02x?}");
    }
    assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5), Ok(&b"Hello"[..]));
}

#[test]
fn bomb_is_refused_after_one_chunk_beyond_the_limit() {
    let mut packed = Vec::new();
    Deflater::with_level(9).compress(&vec![0; 50_000_000], &mut packed);
    assert!(packed.len() < 100_000, "{} bytes", packed.len());
    let mut inflater = Inflater::default();
    // 64 KiB is where a buffer that merely doubles is full, and about to be doubled. The room that a higher limit left
    // behind must not be filled under a lower one.
    for bytes_max in [65_536, 100_000, 1_000_000, 1_000] {
        let Err(Fault::MessageTooBig { bytes, max }) = inflater.inflate(&packed, bytes_max) else {
            panic!("a bomb passed");
        };
        assert_eq!(max, bytes_max);
        assert!((bytes_max as u64 + 1..=bytes_max as u64 + 16 * 1024).contains(&bytes), "{bytes} of {max}");
    }
}

#[test]
fn deflater_never_looks_back_beyond_its_window() {
    // Noise that repeats only at distances that a window of 4 KiB just holds, and just does not hold.
    let mut seed = 1_u32;
    let mut noise = |len| -> Vec<u8> {
        let mut step = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        (0..len).map(|_| step()).collect()
    };
    for distance in [3000, 4096, 5000, 20_000] {
        let message = noise(distance).repeat(3);
        for level in 1..=9 {
            let mut packed = Vec::new();
            Deflater::with_level(level).compress(&message, &mut packed);
            packed.extend_from_slice(&[0, 0, 0xFF, 0xFF]);
            // Pieces of output far below the window's size, so that everything older comes from the window.
            let mut narrow = Decompress::new_with_window_bits(false, WINDOW_BITS);
            let (mut piece, mut whole) = ([0; 64], Vec::new());
            while whole.len() < message.len() {
                let (read, written) = (narrow.total_in() as usize, narrow.total_out());
                narrow.decompress(&packed[read..], &mut piece, FlushDecompress::None).unwrap();
                let len = (narrow.total_out() - written) as usize;
                assert_ne!(len, 0, "distance {distance}, level {level}");
                whole.extend_from_slice(&piece[..len]);
            }
            assert!(whole == message, "distance {distance}, level {level}");
        }
    }
}

#[test]
fn compressed_messages_pass_the_decoder_whole_and_in_fragments() {
    let text = r#"42["msg",{"a":"aaaaaaaaaaaaaaaaaaaaaaaa"}]"#;
    let rules = Rules { message_bytes_max: text.len(), ..Rules::default() };
    let mut packed = Vec::new();
    Deflater::default().compress(text.as_bytes(), &mut packed);
    assert!(packed.len() < text.len());
    let key = [1, 2, 3, 4];
    let mut inflater = Inflater::default();
    for pieces in [1, 2, packed.len()] {
        let mut stream = Vec::new();
        let chunks: Vec<_> = packed.chunks(packed.len().div_ceil(pieces)).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            let op = if i == 0 { OpCode::Text } else { OpCode::Continuation };
            encode_header(&mut stream, op, i + 1 == chunks.len(), i == 0, chunk.len(), Some(key));
            let start = stream.len();
            stream.extend_from_slice(chunk);
            mask(key, &mut stream[start..]);
        }
        let (mut decoder, mut start, mut heard) = (Decoder::default(), 0, Vec::new());
        while let Step::Frame { used, message } =
            decoder.decode(&mut stream[start..], &rules, Some(&mut inflater)).unwrap()
        {
            start += used;
            heard.extend(message.map(|message| match message {
                Message::Text(text) => text.to_owned(),
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!((heard, start), (vec![text.to_owned()], stream.len()));
    }
}

#[test]
fn message_that_grows_by_compression_may_still_have_the_whole_limit() {
    // Noise from an encoder with little memory: stored blocks of 100 bytes, 5 bytes each on top.
    let mut packed = Vec::new();
    for _ in 0..1000 {
        packed.extend_from_slice(&[0x00, 100, 0, !100, 0xFF]);
        packed.extend_from_slice(&[7; 100]);
    }
    packed.push(0);
    let rules = Rules { message_bytes_max: 100_000, ..Rules::default() };
    let mut frame = Vec::new();
    encode_header(&mut frame, OpCode::Binary, true, true, packed.len(), Some([0; 4]));
    frame.extend_from_slice(&packed);
    let (used, mut inflater) = (frame.len(), Inflater::default());
    let mut decoder = Decoder::default();
    let step = decoder.decode(&mut frame, &rules, Some(&mut inflater));
    assert_eq!(step, Ok(Step::Frame { used, message: Some(Message::Binary(&[7; 100_000])) }));
}

#[test]
fn text_that_inflates_to_other_than_utf8_is_refused() {
    let mut frame = Vec::new();
    let mut packed = Vec::new();
    Deflater::default().compress(&[0xC0, 0x80], &mut packed);
    encode_header(&mut frame, OpCode::Text, true, true, packed.len(), Some([0; 4]));
    frame.extend_from_slice(&packed);
    let step =
        Decoder::default().decode(&mut frame, &Rules::default(), Some(&mut Inflater::default())).map(drop);
    assert_eq!(step, Err(Fault::BadUtf8));
}

proptest! {
    #[test]
    fn every_message_comes_back_and_shared_state_leaks_nothing(
        messages in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\x00\xff".to_vec()), 0..9000), 1..4),
        level in 1..10u32,
    ) {
        let (mut deflater, mut inflater) = (Deflater::with_level(level), Inflater::default());
        for message in &messages {
            let mut packed = b"before".to_vec();
            deflater.compress(message, &mut packed);
            prop_assert!(packed.starts_with(b"before"));
            prop_assert!(!packed.ends_with(&[0, 0, 0xFF, 0xFF]));
            // Alone, by an inflater that has never seen the earlier messages.
            let mut fresh = Inflater::default();
            prop_assert_eq!(fresh.inflate(&packed[6..], message.len()), Ok(&message[..]));
            prop_assert_eq!(inflater.inflate(&packed[6..], message.len()), Ok(&message[..]));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_exceed_the_limit(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(bytes) = Inflater::default().inflate(&payload, 1000) {
            prop_assert!(bytes.len() <= 1000);
        }
    }
}
