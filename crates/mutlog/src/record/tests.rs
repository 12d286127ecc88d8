use super::*;
use proptest::prelude::*;

/// A segment of two records as the original's writer makes it: an issue and a ref.
const GOLDEN: &[u8] = b"REC@0+22=\x0a\x20\x0a\x06golang\x12\x02go\x18\x07\x32\x06\x08\x80\x8a\xe0\xd8\x05\
\x9a\x01\x00\xba\x01\x04\xf3\xff\xf8\x47REC@2b+5c=\"Z\x0a\x19go.googlesource.com/build\
\x1a=\x0a\x11refs/heads/master\x12(3b5637ff2bd5c03479780995e7a35c48222157c1";

fn reason(input: &[u8], offset: u64) -> Option<Reason> {
    match split(input, offset) {
        Split::Bad(bad) => Some(bad.reason),
        _ => None,
    }
}

#[test]
fn the_originals_bytes_are_read_and_written() {
    let records: Vec<_> = Records::new(GOLDEN, 0).collect();
    let lengths: Vec<_> = records.iter().map(|(at, payload)| (*at, payload.len())).collect();
    assert_eq!(lengths, [(9, 34), (53, 92)]);
    let mut written = Vec::new();
    for (_, payload) in records {
        let offset = written.len() as u64;
        put(&mut written, offset, payload);
    }
    assert_eq!(written, GOLDEN);
    assert_eq!(
        crate::Sum::of(GOLDEN).to_string(),
        "a06711825da704f57b80ab3c42473ce6813bfaf50f8d3773f9047e1d"
    );
}

#[test]
fn no_bytes_are_a_clean_end() {
    assert_eq!(split(b"", 7), Split::End);
}

#[test]
fn any_beginning_of_a_record_is_short() {
    for end in 1..43 {
        assert_eq!(split(&GOLDEN[..end], 0), Split::Short, "{end} bytes");
    }
}

#[test]
fn a_header_that_does_not_end_is_overlong() {
    let input = [b"REC@".as_slice(), &[b'0'; 36]].concat();
    assert_eq!(reason(&input, 0), Some(Reason::Overlong));
    assert_eq!(split(&input[..39], 0), Split::Short);
    // `=` is byte 40, the last that may be one.
    let longest = [b"REC@".as_slice(), &[b'0'; 33], b"+0="].concat();
    assert_eq!(
        split(&longest, 0),
        Split::Record {
            payload: b"",
            len: 40
        }
    );
}

#[test]
fn what_is_no_header_is_malformed_with_its_place_and_bytes() {
    let inputs: [&[u8]; 9] = [
        b"ABC@0+1=x",
        b"\0\0\0",
        b"REC@0=x",
        b"REC@0+1+1=x",
        b"REC@g+1=x",
        b"REC@+1=x",
        b"REC@0+=x",
        b"REC@0+1 x",
        b"REC@8000000000000000+1=x",
    ];
    for input in inputs {
        assert_eq!(
            reason(input, 0),
            Some(Reason::Malformed),
            "{}",
            input.escape_ascii()
        );
    }
    let Split::Bad(bad) = split(&[b'!'; 100], 7) else {
        panic!("accepted")
    };
    assert_eq!((bad.offset, bad.seen.len()), (7, 64));
    assert!(bad.to_string().starts_with("no record at offset 7: `!!!"));
}

#[test]
fn a_record_of_another_offset_is_told() {
    assert_eq!(reason(&GOLDEN[43..], 42), Some(Reason::WrongOffset { says: 43 }));
}

#[test]
fn a_sign_is_malformed_and_a_huge_length_is_refused() {
    assert_eq!(reason(b"REC@0+-1=x", 0), Some(Reason::Malformed));
    assert_eq!(reason(b"REC@-0+1=x", 0), Some(Reason::Malformed));
    let too_long = Reason::TooLong {
        payload: MAX_PAYLOAD as u64 + 1,
    };
    assert_eq!(reason(b"REC@0+10000001=x", 0), Some(too_long));
    assert_eq!(split(b"REC@0+10000000=x", 0), Split::Short);
}

#[test]
fn upper_case_and_leading_zeros_are_read() {
    let record = Split::Record {
        payload: b"0123456789",
        len: 22,
    };
    assert_eq!(split(b"REC@00AB+0A=0123456789and", 0xab), record);
}

#[test]
fn a_record_may_be_empty() {
    assert_eq!(split(b"REC@0+0=", 0), Split::Record { payload: b"", len: 8 });
}

proptest! {
    #[test]
    fn any_bytes_are_split_without_panic(input: Vec<u8>, offset: u64) {
        let _ = split(&input, offset);
        let after_magic = [b"REC@".as_slice(), &input].concat();
        let _ = split(&after_magic, offset);
    }

    #[test]
    fn what_is_put_is_split_again(payloads: Vec<Vec<u8>>) {
        let mut segment = Vec::new();
        for payload in &payloads {
            let offset = segment.len() as u64;
            put(&mut segment, offset, payload);
        }
        let mut records = Records::new(&segment, 0);
        let read: Vec<_> = records.by_ref().map(|(_, payload)| payload.to_vec()).collect();
        prop_assert_eq!(read, payloads);
        prop_assert_eq!(records.end(), Split::End);
        prop_assert_eq!(records.offset(), segment.len() as u64);
    }
}
