//! Binary packets of the text parser: what an assembler accepts, and in which order.

use sio_proto::{Assembler, Fault, Limits, OwnedIncoming, decode_text};

#[test]
fn an_idle_assembler_is_one_pointer() {
    assert_eq!(size_of::<Assembler>(), size_of::<usize>());
}

#[test]
fn a_packet_is_whole_when_its_last_attachment_has_come() {
    let limits = Limits::default();
    let mut assembler = Assembler::default();
    begin(
        &mut assembler,
        r#"52-/a,7["b",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#,
        &limits,
    )
    .expect("idle");
    assert!(assembler.is_waiting());
    assert_eq!(assembler.push(&[1], &limits), Ok(None));
    let whole = assembler.push(&[], &limits).expect("was due").expect("was the last");
    assert!(!assembler.is_waiting());
    assert_eq!((&*whole.namespace, whole.ack_id, whole.attachments.len()), ("/a", Some(7), 2));
    assert_eq!(whole.as_incoming().attachments, 0, "nothing is due any more");
    // And again.
    begin(&mut assembler, r#"61-7[{"_placeholder":true,"num":0}]"#, &limits).expect("idle again");
    assert!(assembler.push(&[9], &limits).expect("was due").is_some());
}

#[test]
fn messages_out_of_turn_are_faults() {
    let limits = Limits::default();
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(&[1], &limits), Err(Fault::UnexpectedBinary));
    begin(&mut assembler, r#"51-["b"]"#, &limits).expect("idle");
    assert_eq!(begin(&mut assembler, r#"51-["b"]"#, &limits), Err(Fault::UnexpectedText));
    assert!(!assembler.is_waiting(), "the connection ends, so nothing is kept");
    assert_eq!(begin(&mut assembler, r#"2["b"]"#, &limits), Err(Fault::AttachmentCount));
    assert_eq!(begin(&mut assembler, "0", &limits), Err(Fault::AttachmentCount));
}

#[test]
fn placeholders_must_name_an_attachment() {
    let p = |num: &str| format!(r#"["b",{{"_placeholder":true,"num":{num}}}]"#);
    for fine in [
        r#"["b"]"#.to_owned(),
        p("0"),
        p("0.0"),
        p("-0"),
        r#"["b",{"num":0,"_placeholder":true}]"#.to_owned(),
        r#"["b",{"_placeholder":true,"num":0},[{"x":{"_placeholder":true,"num":0}}]]"#.to_owned(),
        // Not placeholders.
        r#"["b",{"_placeholder":false,"num":9},{"num":9},{"_placeholder":"true","num":9}]"#.to_owned(),
        r#"["b","{\"_placeholder\":true,\"num\":9}"]"#.to_owned(),
        r#"["b",{"a":{"_placeholder":null}},["_placeholder",true,"num",9]]"#.to_owned(),
        "".to_owned(),
    ] {
        let whole = assemble(&format!("51-{fine}"), 1).unwrap_or_else(|fault| panic!("{fine}: {fault}"));
        assert_eq!(whole.attachments.len(), 1);
    }
    for wrong in [
        p("1"),
        p("-1"),
        p("0.5"),
        p("\"0\""),
        p("null"),
        p("[0]"),
        p("1e99"),
        r#"["b",{"_placeholder":true}]"#.to_owned(),
        r#"["b",[{"x":{"num":1 , "_placeholder" : true }}]]"#.to_owned(),
        r#"["b",{"\u005fplaceholder":true,"n\u0075m":1}]"#.to_owned(),
        r#"["b",{"_placeholder":true,"num":0,"x":{"num":0},"num":3}]"#.to_owned(),
    ] {
        assert_eq!(assemble(&format!("51-{wrong}"), 1), Err(Fault::Placeholder), "{wrong}");
    }
}

#[test]
fn a_packet_has_a_size() {
    let limits = Limits { assembled_bytes_max: 10, ..Limits::default() };
    let mut assembler = Assembler::default();
    let header = r#"52-["b","12345"]"#;
    begin(&mut assembler, header, &limits).expect("seven bytes of arguments");
    assert_eq!(assembler.push(&[0; 3], &limits), Ok(None));
    assert_eq!(assembler.push(&[0; 1], &limits), Err(Fault::AssembledTooLarge { max: 10 }));
    assert!(!assembler.is_waiting());
    let long = r#"51-["b","1234567890"]"#;
    assert_eq!(begin(&mut assembler, long, &limits), Err(Fault::AssembledTooLarge { max: 10 }));
}

fn begin(assembler: &mut Assembler, text: &str, limits: &Limits) -> Result<(), Fault> {
    assembler.begin(&decode_text(text, limits)?, limits)
}

fn assemble(text: &str, attachments: usize) -> Result<OwnedIncoming, Fault> {
    let limits = Limits::default();
    let mut assembler = Assembler::default();
    begin(&mut assembler, text, &limits)?;
    let mut whole = None;
    for i in 0..attachments {
        whole = assembler.push(&[i as u8], &limits)?;
    }
    Ok(whole.expect("as many attachments as were announced"))
}
