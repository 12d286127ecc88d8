use std::sync::LazyLock;

use maintpb::borrowed::{self, Text, View};
use maintpb::{Malformed, Message, Mutation};
use proptest::prelude::*;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

static SCHEMA: LazyLock<Vec<DescriptorProto>> = LazyLock::new(|| {
    let mut files = crate::schema::compiled().file;
    files.remove(0).message_type
});

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Of any size, small ones more often.
    fn number(&mut self) -> u64 {
        let bits = self.below(65);
        if bits == 0 { 0 } else { self.next() >> (64 - bits) }
    }
}

/// How a message is spoiled beyond what writers do.
#[derive(Clone, Copy)]
struct Spoil {
    /// Known fields of a wire type not their own.
    wrong_types: bool,
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    varint(out, u64::from(number << 3 | wire_type));
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    tag(out, number, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field that no schema has, or whose wire type is not that of `number`: fixed or a group.
fn foreign(rng: &mut Rng, out: &mut Vec<u8>, number: u32, depth: u64) {
    match rng.below(3) {
        0 => {
            tag(out, number, 1);
            out.extend_from_slice(&rng.next().to_le_bytes());
        }
        1 => {
            tag(out, number, 5);
            out.extend_from_slice(&[7; 4]);
        }
        _ => {
            tag(out, number, 3);
            for _ in 0..rng.below(if depth < 3 { 3 } else { 1 }) {
                let inner = rng.below(5) as u32 + 1;
                foreign(rng, out, inner, depth + 1);
            }
            tag(out, number, 4);
        }
    }
}

/// A message of type `name`: its fields in any order, each left out, once, or more often. The second
/// is the same without the fields of wrong types.
fn message(rng: &mut Rng, name: &str, spoil: Spoil) -> (Vec<u8>, Vec<u8>) {
    let kind = SCHEMA
        .iter()
        .find(|kind| kind.name() == name)
        .expect("a message of the schema");
    let (mut spoilt, mut clean) = (Vec::new(), Vec::new());
    for _ in 0..rng.below(9) {
        if rng.below(8) == 0 {
            let mut unknown = Vec::new();
            let number = [20, 47, 999, 1500, 70_000][rng.below(5) as usize];
            match rng.below(3) {
                0 => bytes(&mut unknown, number, b"\xff\xfe"),
                1 => {
                    tag(&mut unknown, number, 0);
                    varint(&mut unknown, rng.number());
                }
                _ => foreign(rng, &mut unknown, number, 0),
            }
            spoilt.extend_from_slice(&unknown);
            clean.extend_from_slice(&unknown);
            continue;
        }
        let at = rng.below(kind.field.len() as u64) as usize;
        if spoil.wrong_types && rng.below(6) == 0 {
            let number = kind.field[at].number() as u32;
            foreign(rng, &mut spoilt, number, 0);
        } else {
            field(rng, &kind.field[at], spoil, &mut spoilt, &mut clean);
        }
    }
    (spoilt, clean)
}

fn field(
    rng: &mut Rng,
    field: &FieldDescriptorProto,
    spoil: Spoil,
    spoilt: &mut Vec<u8>,
    clean: &mut Vec<u8>,
) {
    let number = field.number() as u32;
    let mut one = Vec::new();
    match field.r#type() {
        Type::Message => {
            let name = field.type_name().rsplit('.').next().unwrap();
            let (inner_spoilt, inner_clean) = message(rng, name, spoil);
            bytes(spoilt, number, &inner_spoilt);
            bytes(clean, number, &inner_clean);
            return;
        }
        Type::String => bytes(
            &mut one,
            number,
            ["", "a", "golang/go", "größe"][rng.below(4) as usize].as_bytes(),
        ),
        Type::Bytes => bytes(
            &mut one,
            number,
            [&b""[..], b"\xff\0", b"raw"][rng.below(3) as usize],
        ),
        Type::Int64 | Type::Int32 | Type::Bool => {
            if field.label() == Label::Repeated && rng.below(2) == 0 {
                let mut packed = Vec::new();
                for _ in 0..rng.below(4) {
                    varint(&mut packed, rng.number());
                }
                bytes(&mut one, number, &packed);
            } else {
                tag(&mut one, number, 0);
                varint(&mut one, rng.number());
            }
        }
        other => panic!("no field has type {other:?}"),
    }
    spoilt.extend_from_slice(&one);
    clean.extend_from_slice(&one);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_message_reads_as_the_generated_reader_reads_it(seed: u64) {
        let (bytes, _) = message(&mut Rng(seed), "Mutation", Spoil { wrong_types: false });
        let view = borrowed::Mutation::decode(&bytes).unwrap();
        prop_assert_eq!(view.copied(), Mutation::decode(&bytes[..]).unwrap());
        prop_assert_eq!(view.bytes, &bytes[..]);
    }

    #[test]
    fn some_fields_are_read_as_if_the_others_were_not_there(seed: u64) {
        let (bytes, _) = message(&mut Rng(seed), "Mutation", Spoil { wrong_types: false });
        let some = borrowed::Mutation::decode_fields(&bytes, |number| number == 1 || number == 1001).unwrap();
        let whole = Mutation::decode(&bytes[..]).unwrap();
        let expect = Mutation { github_issue: whole.github_issue, observed_at: whole.observed_at, ..Default::default() };
        prop_assert_eq!(some.copied(), expect);
        prop_assert_eq!(some.bytes, &bytes[..]);
    }

    #[test]
    fn a_wrong_wire_type_is_an_unknown_field(seed: u64) {
        let (spoilt, clean) = message(&mut Rng(seed), "Mutation", Spoil { wrong_types: true });
        let view = borrowed::Mutation::decode(&spoilt).unwrap();
        prop_assert_eq!(view.copied(), Mutation::decode(&clean[..]).unwrap());
    }

    #[test]
    fn a_message_cut_or_changed_anywhere_is_refused_by_both_or_read_alike(seed: u64, cut: prop::sample::Index, flip: prop::sample::Index, bit in 0..8_u8) {
        let (mut bytes, _) = message(&mut Rng(seed), "Mutation", Spoil { wrong_types: false });
        check_agreement(&bytes[..cut.index(bytes.len() + 1)])?;
        if !bytes.is_empty() {
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            check_agreement(&bytes)?;
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        check_agreement(&bytes)?;
    }
}

/// The generated reader is the stricter, about wrong wire types and about text.
fn check_agreement(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (borrowed::Mutation::decode(bytes), Mutation::decode(bytes)) {
        (Ok(view), Ok(generated)) => prop_assert_eq!(view.copied(), generated),
        (Err(_), Ok(_)) => prop_assert!(false, "only the generated reader takes it"),
        (Ok(_), Err(error)) => {
            let error = error.to_string();
            prop_assert!(
                error.contains("invalid wire type") || error.contains("invalid string value"),
                "{error}"
            );
        }
        (Err(_), Err(_)) => {}
    }
    Ok(())
}

fn issue(bytes: &[u8]) -> borrowed::GithubIssueMutation<'_> {
    borrowed::GithubIssueMutation::decode(bytes).unwrap()
}

#[test]
fn an_empty_message_is_present() {
    let absent = issue(b"");
    assert_eq!((absent.closed, absent.body_change), (None, None));
    let open = issue(b"\x9a\x01\x00");
    assert_eq!(open.closed.map(|closed| closed.val), Some(false));
    let cleared = issue(b"\xfa\x01\x00");
    assert!(cleared.body_change.is_some_and(|body| body.val.is_empty()));
}

#[test]
fn an_empty_message_is_written() {
    let open = maintpb::GithubIssueMutation {
        closed: Some(maintpb::BoolChange { val: false }),
        ..Default::default()
    };
    assert_eq!(open.encode_to_vec(), b"\x9a\x01\x00");
}

#[test]
fn the_last_value_wins_and_messages_are_merged() {
    let view = issue(b"\x18\x01\x22\x02\x08\x05\x18\x02\x22\x03\x12\x01x");
    let user = view.user.unwrap();
    assert_eq!((view.number, user.id, user.login), (2, 5, Text(b"x")));
}

#[test]
fn numbers_come_packed_or_not() {
    assert_eq!(issue(b"\xba\x01\x02\x01\x02\xb8\x01\x03").remove_label, [1, 2, 3]);
    assert_eq!(
        issue(b"\xb8\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").remove_label,
        [-1]
    );
}

#[test]
fn text_that_is_no_utf8_keeps_its_bytes() {
    let view = issue(b"\x4a\x02\xffx");
    assert_eq!(
        (view.title, view.title.lossy()),
        (Text(b"\xffx"), "\u{fffd}x".into())
    );
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    let check = |bytes: &[u8], why| assert_eq!(borrowed::Mutation::decode(bytes), Err(why), "{bytes:?}");
    check(b"\x0a\x05abc", Malformed::Short);
    check(b"\x80", Malformed::Short);
    check(b"\x00\x00", Malformed::BadTag);
    check(b"\x0f", Malformed::BadTag);
    check(
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        Malformed::LongVarint,
    );
    check(b"\x0c", Malformed::BadGroup);
    check(b"\x0b\x14", Malformed::BadGroup);
    check(&[0x0b; 200], Malformed::BadGroup);
}
